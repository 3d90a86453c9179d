"""ResNet-18 and 34, and their plain twins, on ImageNet-1k. He et al. 2015, arXiv:1512.03385, section 3.4.

    python -m cvresearch.main --config configs/resnet18.py --workdir runs/resnet18
    python -m cvresearch.main --config configs/resnet18.py:resnet34_c --workdir runs/resnet34_c

The recipe of configs/resnet50.py.
Expected, top-1: `resnet18` 69.8 % (option B, one crop; verified: torchvision's weights). Over ten crops (verified:
tables 2 and 3): `:plain18` 72.06, `:plain34` 71.46, `:resnet18_a` 72.12, `:resnet34_a` 74.97, `:resnet34` (B) 75.48,
`:resnet34_c` 75.81 %.
Cost: 153 M images; 7.7 device-hours.

`:modern` is `common.modern_residual`; torchvision has no such weights for these nets.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=120, batch_size=256)
    c.model = dict(name='resnet18')
    c.minival = 10_000
    c.transform.train.crop = dict(name='resize_random_crop', size=224, low=256, high=480)
    c.transform.train.lighting = 0.1
    c.batch_norm.group_size = 32
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(
        name='plateau', peak=0.1, rate=0.1, end=1e-4, split='minival', batch_scaling='linear', reference_batch=256
    )
    models = dict.fromkeys(('resnet18_a', 'resnet34', 'resnet34_a', 'resnet34_c', 'plain18', 'plain34'), 224)
    return common.finish(c, arg, models, modern=common.modern_residual, smoke_model=dict(stage_sizes=(1, 1, 1, 1)))


def sweep():
    for name in ('plain18', 'plain34', 'resnet18_a', 'resnet34_a', 'resnet34', 'resnet34_c'):
        yield {'model.name': name}
