"""LeNet-5 as published, on the 5,000 MNIST digits (4,000 train, 1,000 test).

LeCun et al. 1998, Proc. IEEE 86(11), section II-B: trainable subsampling, partially connected C3,
RBF output with fixed codes (60,000 trainable parameters), trained with the paper's criterion
(equation 9) on pixels from -0.1 to 1.175. The paper used stochastic Levenberg-Marquardt, section
III-B; here it is AdamW.

    python -m cvresearch.main --config configs/lenet5_1998_mnist5k.py --workdir runs/lenet5_1998_mnist5k

Expected: a little below `lenet5_mnist5k` (measured: the README's table, one seed; its grouped C3 is
slow on CPU). Paper: 99.05 % with 60,000 digits.
Cost: 120,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k()
    c.model = dict(name='lenet5_1998')
    c.loss = dict(name='maximum_a_posteriori', penalty=0.1, label_smoothing=0.0)
    c.normalize.update(mean=(0.1 / 1.275,), std=(1 / 1.275,))  # background -0.1, ink 1.175
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
