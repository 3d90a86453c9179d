"""Degradation: plain nets against residual ones, 20 to 56 layers (Fashion-MNIST: 5,000 train, 10,000 test).

He et al. 2015, arXiv:1512.03385, section 4.2 and figure 6: deeper plain nets have a higher error, on the training set
too; residual ones have not. Shortcuts: none, option A (zeros for new channels), option B (projections).

    python -m launch.sweep --config configs/study_degradation.py --workdir runs/study_degradation

A quarter of the paper's width (4, 8 and 16 channels), SGD with momentum 0.9, 0.1, half a cosine over 10 epochs, batch
64; no augmentation, so that the training error is of the images as they are.
Expected, test error on CIFAR-10: plain-20, -32, -44, -56 about 9.5, 10, 12 and 13.5 % (figure 6, read by eye), residual
8.75, 7.51, 7.17 and 6.97 (table 6; verified). After 10 epochs alone a public rerun has plain-20 at 24.87, plain-56 at
56.80, ResNet-20 at 19.48 and ResNet-56 at 18.43 % (verified): the gap shows at once. Measured here:
docs/evidence/degradation.md.
Cost: 50,000 images, for each of 36 runs.
"""

from configs import common
from cvresearch.base import sweeps

SHORTCUTS = ({'residual': False}, {'residual': True}, {'shortcut': 'projection'})


def get_config(arg=''):
    c = common.fashion_study(epochs=10, batch_size=64, train=5000)
    c.model = dict(name='resnet20_cifar10', width=0.25)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4)
    c.schedule = dict(name='cosine', peak=0.1)
    c.evaluate_every_epochs = 2.0
    return common.finish(c, arg, smoke_model=dict(depth=8))


def sweep():
    kinds = [{f'model.{key}': value for key, value in kind.items()} for kind in SHORTCUTS]
    return sweeps.product({'seed': range(3)}, {'model.depth': (20, 32, 44, 56)}, kinds)
