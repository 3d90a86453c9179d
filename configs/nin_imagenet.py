"""Network in Network on ImageNet-1k. Lin et al. 2013, arXiv:1312.4400; the net of the Caffe model zoo.

    python -m cvresearch.main --config configs/nin_imagenet.py --workdir runs/nin_imagenet

The paper has no ImageNet net. The zoo's recipe (all of it recalled): SGD with momentum, batch 64, 0.01 divided by ten
every 200,000 steps, 450,000 steps, weight decay 5e-4, crops of 224 out of 256 and flips.
Expected: 59.4 % top-1, one crop (recalled: the model zoo).
Cost: 28.8 M images; 0.88 device-hours.

`:modern` is `common.modern_plain`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=22.5, batch_size=64)
    c.model = dict(name='nin_imagenet')
    c.transform.train.crop = dict(name='resize_random_crop', size=224, low=256, high=256)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=5e-4)
    c.schedule = dict(name='step', peak=0.01, every_epochs=10.0, batch_scaling='linear', reference_batch=64)
    return common.finish(c, arg, smoke_size=96, modern=common.modern_plain)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
