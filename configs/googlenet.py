"""GoogLeNet (Inception v1) on ImageNet-1k. Szegedy et al. 2014, arXiv:1409.4842, section 6.

    python -m cvresearch.main --config configs/googlenet.py --workdir runs/googlenet

Paper: asynchronous SGD with momentum 0.9, the rate falling by 4 % every 8 epochs, Polyak averaging, two auxiliary
heads of weight 0.3; patches of 8 to 100 % of the area with ratios of 3:4 to 4:3, photometric distortions. Not in the
paper, and as BVLC's Caffe model has it: first rate 0.01, 2.4 million steps, weight decay 2e-4 (verified: its
quick_solver) of 32 images (recalled), which are 60 epochs. Ours: synchronous.
Expected: 68.7 % top-1, 88.9 % top-5, one crop (BVLC's Caffe model); paper: 10.07 % top-5 error, one net and one crop
(verified: table 3).
Cost: 76.9 M images; 3.4 device-hours.

`:googlenet_aux` is torchvision's net with batch norm: 69.8 and 89.5 % (verified: its weights).
`:modern` is `common.modern_plain`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=60, batch_size=32)
    c.model = dict(name='googlenet_2014_aux')
    c.transform.train.update(brightness=0.4, contrast=0.4, saturation=0.4)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=2e-4)
    c.schedule = dict(
        name='exponential', peak=0.01, every_epochs=8.0, rate=0.96, batch_scaling='linear', reference_batch=32
    )
    c.average = dict(name='polyak')
    models = dict.fromkeys(('googlenet_2014', 'googlenet', 'googlenet_aux'), 224)
    return common.finish(c, arg, models, smoke_size=224, modern=common.modern_plain)


def sweep():
    for seed in range(7):  # the paper's ensemble: seven nets that differ in the order of images
        yield {'seed': seed}
