"""VGG-16 with batch norm on ImageNet-1k. The net of torchvision, after Simonyan & Zisserman 2014, arXiv:1409.1556.

    python -m cvresearch.main --config configs/vgg16_bn.py --workdir runs/vgg16_bn

Recipe of torchvision's references (recalled): SGD with momentum, batch 256 (32 on each of 8), 0.01 divided by ten every
30 of 90 epochs, weight decay 1e-4 of all parameters, random resized crops and flips.
Expected: 73.4 % top-1, 91.5 % top-5, one crop (verified: torchvision's weights). `:vgg11_bn` 70.4, `:vgg13_bn` 71.6,
`:vgg19_bn` 74.2 % top-1 (verified likewise).
Cost: 115 M images; 50 device-hours.

`:modern` is `common.modern_residual` at a tenth of its rate; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=90, batch_size=256)
    c.model = dict(name='vgg16_bn')
    c.batch_norm.group_size = 32
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(name='step', peak=0.01, every_epochs=30.0, batch_scaling='linear', reference_batch=256)
    models = dict.fromkeys(('vgg11_bn', 'vgg13_bn', 'vgg19_bn'), 224)
    return common.finish(c, arg, models, smoke_size=224, modern=modern)


def modern(c):
    common.modern_residual(c)
    c.transform.train.crop.size = 224  # the dense layers are tied to it
    c.schedule.peak = 0.05


def sweep():
    for seed in range(3):
        yield {'seed': seed}
