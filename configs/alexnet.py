"""AlexNet on ImageNet-1k. Krizhevsky, Sutskever & Hinton 2012, NIPS, section 5.

    python -m cvresearch.main --config configs/alexnet.py --workdir runs/alexnet

Paper: SGD with momentum, batch 128, weight decay 5e-4, 0.01 divided by ten whenever the validation error stops
improving (three times), about 90 epochs; 224 of 256 pixels, flips, the colours of section 4.1. Ours: the error is of
10,000 images held out. Biases are decayed too, as the equations of section 5 have it (Caffe's are not).
Expected: 59.3 % top-1, 81.8 % top-5 (40.7 and 18.2 % error of one net over ten patches; verified: the paper's table 2).
One crop: 57.1 and 80.2 % (verified: BVLC's Caffe model).
Cost: 114 M images; 2.2 device-hours.

`:alexnet` and `:alexnet_single_tower` are the one-tower nets; for `:alexnet` torchvision has 56.5 and 79.1 %
(verified: its weights). `:modern` is `common.modern_plain`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=90, batch_size=128)
    c.model = dict(name='alexnet_2012')
    c.minival = 10_000
    c.transform.train.crop = dict(name='resize_random_crop', size=224, low=256, high=256, square=True)
    c.transform.train.lighting = 0.1
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=5e-4, decay_all=True)
    c.schedule = dict(
        name='plateau', peak=0.01, rate=0.1, end=1e-5, split='minival', batch_scaling='linear', reference_batch=128
    )
    models = {'alexnet': 224, 'alexnet_single_tower': 224}
    return common.finish(c, arg, models, smoke_size=224, modern=common.modern_plain)


def sweep():
    for seed in range(5):  # the paper averages five nets
        yield {'seed': seed}
