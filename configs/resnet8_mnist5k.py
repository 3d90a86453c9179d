"""A ResNet of depth 8 on the 5,000 MNIST digits (4,000 train, 1,000 test).

He et al. 2015, arXiv:1512.03385, section 4.2, with n = 1. The recipe is this project's.

    python -m cvresearch.main --config configs/resnet8_mnist5k.py --workdir runs/resnet8_mnist5k

Expected: measured, docs/recipes_mnist.md.
Cost: 80,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k(epochs=20)
    c.model = dict(name='resnet20_cifar10', depth=8)
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
