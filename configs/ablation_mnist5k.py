"""Mixup x label smoothing x progressive resizing on the 5,000 MNIST digits (4,000 train, 1,000 test).

    for each settings of sweep(): python -m cvresearch.main --config configs/ablation_mnist5k.py --config.KEY=VALUE --workdir DIR

CNN-GAP at 28 pixels, which takes any size. Mixup with alpha 0.2 (Zhang et al. 2017, arXiv:1710.09412), smoothing of 0.1 (Szegedy
et al. 2015, arXiv:1512.00567, section 7), and images of 20 pixels for the first half of the run, 24 for the next quarter.
Expected: measured, docs/recipes_mnist.md: with three seeds each, differences of a few tenths of a percent are noise.
Cost: {cost}, for each of 24 runs.
"""

import itertools

from configs import common


def get_config(arg=''):
    c = common.mnist5k(epochs=12)
    c.model = dict(name='cnn_gap')
    return common.finish(c, arg)


def sweep():
    for mixup, smoothing, sizes in itertools.product((0.0, 0.2), (0.0, 0.1), ((), (20, 24, 28))):
        for seed in range(3):
            yield {
                'augment.mixup': mixup, 'loss.label_smoothing': smoothing, 'resize.sizes': sizes, 'seed': seed,
            }  # fmt: skip
