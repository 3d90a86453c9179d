"""LeNet-5 with ReLU and max pooling on the 5,000 MNIST digits (4,000 train, 1,000 test).

The modern form of LeCun et al. 1998 (61,706 parameters). The same recipe as `lenet5_mnist5k`.

    python -m cvresearch.main --config configs/lenet5_relu_mnist5k.py --workdir runs/lenet5_relu_mnist5k

Expected: about as `lenet5_mnist5k` (measured: the README's table).
Cost: 120,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k()
    c.model = dict(name='lenet5_relu')
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
