"""Mixup x label smoothing x progressive resizing on the 5,000 MNIST digits (4,000 train, 1,000 test).

    python -m launch.sweep --config configs/ablation_mnist5k.py --workdir runs/ablation_mnist5k

CNN-GAP at 28 pixels, which takes any size. Mixup with alpha 0.2 (Zhang et al. 2017, arXiv:1710.09412), smoothing of
0.1 (Szegedy et al. 2015, arXiv:1512.00567, section 7), and images of 20, 24 and 28 pixels in
three equal parts of the run (Tan & Le 2021, arXiv:2104.00298, section 4).
Expected: measured, docs/recipes_mnist.md: with three seeds each, differences of a few tenths of a percent are noise.
Cost: 120,000 images, for each of 24 runs.
"""

from configs import common
from cvresearch.base import sweeps


def get_config(arg=''):
    c = common.mnist5k(epochs=30)
    c.model = dict(name='cnn_gap')
    c.resize = dict(name='efficientnet_v2', stages=3, size=(28, 28))
    return common.finish(c, arg)


def sweep():
    return sweeps.product(
        {
            'mixing.mixup': (0.0, 0.2),
            'loss.label_smoothing': (0.0, 0.1),
            'resize.size': ((28, 28), (20, 28)),
            'seed': range(3),
        }
    )
