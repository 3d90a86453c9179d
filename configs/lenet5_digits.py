"""LeNet-5 on scikit-learn's 1,797 digits, enlarged from 8x8 to 28x28 (1,442 train, 355 test).

The smallest real data at hand: half a minute on two cores.

    python -m cvresearch.main --config configs/lenet5_digits.py --workdir runs/lenet5_digits

Expected: above 97 % top-1.
Cost: 43,260 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k()
    c.model = dict(name='lenet5')
    c.data = dict(name='digits', image_size=28)
    c.eval_batch_size = 400
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
