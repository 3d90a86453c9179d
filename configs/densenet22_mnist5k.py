"""A DenseNet-BC of depth 22 and growth 12 on the 5,000 MNIST digits (4,000 train, 1,000 test).

Huang et al. 2017, CVPR, arXiv:1608.06993, section 3, with three layers a block. The recipe is this project's.

    python -m cvresearch.main --config configs/densenet22_mnist5k.py --workdir runs/densenet22_mnist5k

Expected: measured, docs/recipes_mnist.md.
Cost: 80,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k(epochs=20)
    c.model = dict(name='densenetbc100_k12_cifar10', layers=(3, 3, 3))
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
