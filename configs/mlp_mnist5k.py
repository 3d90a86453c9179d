"""A multilayer perceptron, 784-512-512-10, on the 5,000 MNIST digits (4,000 train, 1,000 test).

669,706 parameters; ReLU. The widths are this project's choice. The same recipe as `lenet5_mnist5k`.

    python -m cvresearch.main --config configs/mlp_mnist5k.py --workdir runs/mlp_mnist5k

Expected: between `softmax_regression_mnist5k` and `lenet5_mnist5k` (measured: the README's table).
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k()
    c.model = dict(name='mlp')
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
