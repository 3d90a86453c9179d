"""ResNets of depth 20 to 110 for CIFAR, and their plain twins. He et al. 2015, arXiv:1512.03385, section 4.2.

    python -m cvresearch.main --config configs/resnet20_cifar10.py --workdir runs/resnet20_cifar10
    python -m cvresearch.main --config configs/resnet20_cifar10.py:resnet56,cifar100 --workdir runs/resnet56_cifar100

Paper: SGD with momentum 0.9, batch 128, weight decay 1e-4, 0.1 divided by ten after 32,000 and 48,000 of 64,000
steps, four pixels of padding, crops, flips; batch norm over 64 examples (two GPUs). In epochs: 81.92, 122.88 and
163.84 of 50,000 images. The paper divides the rates on 45,000 images and then trains on all.
Expected, top-1 on the 10,000 test images (verified: table 6): 91.25 %, `:resnet32` 92.49, `:resnet44` 92.83,
`:resnet56` 93.03, `:resnet110` 93.57 (best of five; mean 93.39), `:resnet1202` 92.07. `:plain56` is far worse,
`:plain110` over 60 % error.
Cost: 8.19 M images; 0.11 device-hours.

`:resnet110` and `:resnet1202` warm up for 400 steps, as in the paper (there at 0.01, here rising).
`:stochastic_depth` is Huang et al. 2016, arXiv:1603.09382: 500 epochs, 0.1 divided by ten at 250 and 375, last block
dropped half of the time; resnet110 94.77 % (recalled: 5.23 % error, its table 1). `:modern` is `common.modern_cifar`;
no number is known for it.
"""

from configs import common

RESNETS, PLAIN = (32, 44, 56), (20, 32, 44, 56, 110)


def get_config(arg=''):
    c = common.cifar(epochs=163.84, batch_size=128)
    c.model = dict(name='resnet20_cifar10')
    c.batch_norm.group_size = 64
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(
        name='multistep', peak=0.1, epochs=(81.92, 122.88), rate=0.1, batch_scaling='linear', reference_batch=128
    )
    nets = {f'resnet{depth}': net(f'resnet{depth}_cifar10') for depth in RESNETS}
    nets |= {f'resnet{depth}': net(f'resnet{depth}_cifar10', warmup_steps=400) for depth in (110, 1202)}
    nets |= {f'plain{depth}': net(f'plain{depth}_cifar10') for depth in PLAIN}
    return common.finish(
        c,
        arg,
        smoke_model=dict(depth=8),
        **nets,
        cifar100=common.cifar100,
        stochastic_depth=stochastic_depth,
        modern=common.modern_cifar,
    )


def net(name, warmup_steps=0):
    def change(c):
        c.model.name = name
        c.schedule.warmup_steps = warmup_steps

    return change


def stochastic_depth(c):
    c.epochs = 500.0
    c.model.stochastic_depth = 0.5
    c.schedule.epochs = (250, 375)


def sweep():
    for depth in (20, 32, 44, 56, 110):  # table 6
        yield {'model.name': f'resnet{depth}_cifar10'}
