"""ResNeXt-29 for CIFAR. Xie et al. 2016, arXiv:1611.05431, section 5.3.

    python -m cvresearch.main --config configs/resnext29_8x64d_cifar10.py --workdir runs/resnext29_8x64d_cifar10

Paper: SGD with momentum 0.9, batch 128 on eight GPUs, weight decay 5e-4, 0.1 divided by ten at 150 and 225 of 300
epochs, the augmentation of the ResNets.
Expected, top-1 (verified: table 7, means of ten): 96.35 %, on CIFAR-100 82.23 %; `:resnext29_16x64d_cifar10` 96.42
and 82.69 %.
Cost: 15 M images; 2.2 device-hours.

`:modern` is `common.modern_cifar`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.cifar(epochs=300, batch_size=128)
    c.model = dict(name='resnext29_8x64d_cifar10')
    c.batch_norm.group_size = 16
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=5e-4, decay_all=True)
    c.schedule = dict(
        name='multistep', peak=0.1, epochs=(150, 225), rate=0.1, batch_scaling='linear', reference_batch=128
    )
    models = {'resnext29_16x64d_cifar10': 32}
    return common.finish(
        c, arg, models, cifar100=common.cifar100, modern=common.modern_cifar, smoke_model=dict(depth=11, group_width=4)
    )


def sweep():
    for seed in range(10):  # table 7 has means of ten
        yield {'seed': seed}
