"""Softmax regression on the 5,000 MNIST digits (4,000 train, 1,000 test).

The linear classifier of LeCun et al. 1998, Proc. IEEE 86(11), section III-C1, with a softmax
(7,850 parameters). The same recipe as `lenet5_mnist5k`, so that the nets compare.

    python -m cvresearch.main --config configs/softmax_regression_mnist5k.py --workdir runs/softmax_regression_mnist5k

Expected: below `mlp_mnist5k` and `lenet5_mnist5k` on the same split (measured: the README's table).
Cost: 120,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k()
    c.model = dict(name='softmax_regression')
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
