"""Snapshot ensembles of LeNet-5 on 500 MNIST digits (50 a class; the 1,000 test digits of mnist5k).

Huang et al. 2017, arXiv:1704.00109: one run of six cosine cycles of 20 epochs, whose ends are averaged. Of the same
cost are `:cosine`, one cosine over all 120 epochs, and `:constant`, which keeps the rate constant and takes a snapshot
every 20 epochs. The paper's nets and data are larger; the rest of the recipe is `lenet5_mnist5k`'s.

    python -m cvresearch.main --config configs/snapshots_mnist500.py --workdir runs/snapshots_seed0
    python -m cvresearch.main --config configs/snapshots_mnist500.py:cosine --workdir runs/cosine_seed0
    python -m cvresearch.evaluate --workdir runs/snapshots_seed0 --ensemble snapshots --control runs/cosine_seed0

Expected: about 95 % (measured with three seeds: docs/ensembles.md). Cost: 60,000 images.
"""

from configs import common

CYCLES, CYCLE_EPOCHS = 6, 20


def get_config(arg=''):
    c = common.mnist5k(epochs=CYCLES * CYCLE_EPOCHS, batch_size=50)
    c.model = dict(name='lenet5')
    c.data = dict(name='mnist500')
    c.schedule = dict(name='sgdr', peak=2e-3, t_0_epochs=float(CYCLE_EPOCHS), t_mult=1.0)
    c.evaluate_every_epochs = c.save_every_epochs = float(CYCLE_EPOCHS)
    return common.finish(c, arg, snapshots=snapshots, cosine=cosine, constant=constant, smoke=smoke)


def snapshots(c):
    """The experiment itself, by name."""


def cosine(c):
    c.schedule = dict(name='cosine', peak=2e-3)


def constant(c):
    c.schedule = dict(name='constant', peak=2e-3)
    c.snapshot_every_epochs = float(CYCLE_EPOCHS)


def smoke(c):
    c.epochs = 2.0
    if 't_0_epochs' in c.schedule:
        c.schedule.t_0_epochs = 1.0


def sweep():
    for seed in range(3):
        yield {'seed': seed}
