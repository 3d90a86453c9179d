"""One knob of training at a time (Fashion-MNIST: 5,000 train, 10,000 test): rate, dropout, decay, augmentation.

    python -m launch.sweep --config configs/study_training.py:rates --workdir runs/study_rates

- `rates`: SGD with momentum 0.9 and a constant rate of 1e-4 to 1, LeNet-5 with ReLU, 10 epochs. The lectures (and
  CS231n, "Neural networks part 3"): too low a rate learns slowly, a high one stalls on a plateau, too high a one
  diverges.
- `dropout`: a rate of 0 to 0.8 in an MLP (784-512-512-10), 30 epochs. Srivastava et al. 2014, JMLR 15, section 7.3:
  the gap between training and test error closes; at too high a rate the net underfits.
- `weight_decay`: AdamW with 0 to 1, LeNet-5 with ReLU, 30 epochs (Loshchilov & Hutter 2017, arXiv:1711.05101).
- `augmentation` (the default): one at a time and all together, LeNet-5 with ReLU, 30 epochs. The lectures: each
  enlarges the training set, and together they gain most. Progressive resizing needs a net that takes any size:
  configs/ablation_mnist5k.py.

Strengths were set before any run, and none was chosen by a result. Expected: as said; measured here:
docs/evidence/training.md.
Cost: 150,000 images, for each of 36 runs.
"""

from configs import common
from cvresearch.base import sweeps

AUGMENTATIONS = {
    'flip': {'augment.flip': True},
    'shift': {'augment.shift': 2},
    'rotation': {'augment.rotate': 10.0},
    'shear': {'augment.shear': 10.0},
    'stretch': {'augment.stretch': 0.1},
    'erasing': {'augment.erasing': 0.5},
    'mixup': {'mixing.mixup': 0.2},
    'cutmix': {'mixing.cutmix': 1.0},
    'smoothing': {'loss.label_smoothing': 0.1},
}
TOGETHER = {
    key: value for name, setting in AUGMENTATIONS.items() if name not in ('cutmix', 'mixup')
    for key, value in setting.items()
} | {'mixing.mixup': 0.2}  # fmt: skip
SETTINGS = {
    'rates': [{'schedule.peak': rate} for rate in (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)],
    'dropout': [{'model.dropout': rate} for rate in (0.0, 0.2, 0.4, 0.6, 0.8)],
    'weight_decay': [{'optimizer.weight_decay': decay} for decay in (0.0, 1e-3, 1e-2, 1e-1, 1.0)],
    'augmentation': [{}, *AUGMENTATIONS.values(), TOGETHER],
}


def get_config(arg=''):
    c = common.fashion_study(epochs=30, batch_size=64, train=5000)
    c.model = dict(name='lenet5_relu')
    return common.finish(c, arg, rates=rates, dropout=dropout, weight_decay=augmentation, augmentation=augmentation)


def rates(c):
    c.epochs, c.evaluate_every_epochs = 10.0, 1.0
    c.log_every_steps = 20
    c.optimizer = dict(name='sgd', momentum=0.9)
    c.schedule = dict(name='constant', peak=0.01)
    c.non_finite = dict(name='skip', in_a_row=1_000_000)  # a rate that diverges is a result here


def dropout(c):
    c.model = dict(name='mlp', dropout=0.0)
    c.optimizer.weight_decay = 0.0


def augmentation(c):
    """The recipe as it is: the sweep says what differs."""


def sweep(arg=''):
    study = next((name for name in arg.split(',') if name in SETTINGS), 'augmentation')
    return sweeps.product({'seed': range(3)}, SETTINGS[study])
