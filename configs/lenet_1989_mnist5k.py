"""The zip-code net of 1989 on the 5,000 MNIST digits at 16 px (4,000 train, 1,000 test).

LeCun et al. 1989, Neural Computation 1(4): 9,760 parameters. The paper trained it on the squared error with a
quasi-Newton method; the recipe here is this project's.

    python -m cvresearch.main --config configs/lenet_1989_mnist5k.py --workdir runs/lenet_1989_mnist5k

Expected: paper 95.0 % on zip codes (5.0 % error, 7,291 digits to train). Not measured here.
Cost: 120,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k()
    c.data.image_size = 16
    c.augment.shift = 1
    c.model = dict(name='lenet_1989')
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
