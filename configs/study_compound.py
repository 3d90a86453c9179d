"""Compound scaling at equal multiply-adds (Fashion-MNIST: 5,000 train, 10,000 test): the base net of a laboratory.

Tan & Le 2019, arXiv:1905.11946, section 3.3: a net scaled in depth, width and resolution together is better than one
scaled in one of them to the same cost. `launch.compound` makes the candidates and trains them.

    python -m launch.compound --config configs/study_compound.py --workdir runs/study_compound_2 --budget 2

ResNet-8 of half the width at 16 pixels, SGD with momentum 0.9, half a cosine over 10 epochs.
Expected: the paper has on ImageNet, of B0 at 4 times its cost, 79.0 % by depth alone, 78.9 by width, 79.1 by
resolution and 81.1 together (table 7, verified). Measured here: docs/evidence/efficientnet.md.
Cost: 50,000 images, for each candidate.
"""

from configs import common


def get_config(arg=''):
    c = common.fashion_study(epochs=10, batch_size=64, train=5000)
    c.data.image_size = 16
    c.model = dict(name='resnet20_cifar10', depth=8, width=0.5)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4)
    c.schedule = dict(name='cosine', peak=0.1)
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
