"""MobileNet v1 of width 0.25 on the 5,000 MNIST digits, enlarged to 64 px (4,000 train, 1,000 test).

Howard et al. 2017, arXiv:1704.04861, table 1. The net halves its map five times, so that 28 pixels would leave one.
The recipe is this project's: batch norm forgets faster than with the paper's momentum of 0.9997, for which the run is
too short; and the kernels are He et al.'s by fan-in, so that Adam's steps are small beside the depthwise kernels.

    python -m cvresearch.main --config configs/mobilenet025_mnist5k.py --workdir runs/mobilenet025_mnist5k

`:int8` trains on as int8 will compute it, a fifth as long at a tenth of the rate, from the weights of such a run;
`--config.compress.per_channel=False` with one scale for a kernel:

    python -m cvresearch.main --config configs/mobilenet025_mnist5k.py:int8 --workdir runs/rounded \
        --config.init.weights=run:runs/mobilenet025_mnist5k

Expected: measured, docs/recipes_mnist.md.
Cost: 80,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k(epochs=20, batch_size=32)  # 2,500 steps: a deep net without shortcuts is slow to start
    c.data.image_size = 64
    c.augment.shift = 4
    c.model = dict(name='mobilenetv1_025', bn_momentum=0.95, kernel_init='he_fan_in')
    return common.finish(c, arg, int8=int8)


def int8(c):
    c.init.head = 'keep'
    c.epochs = 4.0
    c.schedule.peak = 2e-4
    c.compress = dict(name='int8')


def sweep():
    for seed in range(3):
        yield {'seed': seed}
