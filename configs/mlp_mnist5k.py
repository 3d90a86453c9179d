"""A multilayer perceptron, 784-512-512-10, on the 5,000 MNIST digits (4,000 train, 1,000 test).

669,706 parameters; ReLU. The widths are this project's choice. The same recipe as `lenet5_mnist5k`.

    python -m cvresearch.main --config configs/mlp_mnist5k.py --workdir runs/mlp_mnist5k

`:mlp_300_100` is the net of LeCun et al. 1998 (266,610 parameters): 96.95 % with 60,000 digits (3.05 % error;
verified).

Expected: between `softmax_regression_mnist5k` and `lenet5_mnist5k` (measured: the README's table).
Cost: 120,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k()
    c.model = dict(name='mlp')
    return common.finish(c, arg, mlp_300_100=mlp_300_100)


def mlp_300_100(c):
    c.model.name = 'mlp_300_100'


def sweep():
    for seed in range(3):
        yield {'seed': seed}
