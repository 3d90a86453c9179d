"""Snapshot ensembles at equal cost (Fashion-MNIST: 5,000 train, 10,000 test): one run of M cycles, or M runs.

Huang et al. 2017, arXiv:1704.00109: M cycles of a cosine, whose ends answer together, are better than one cosine of the
same length (figure 2), and not as good as M nets trained in full; Loshchilov & Hutter 2016, arXiv:1608.03983 (SGDR);
Izmailov et al. 2018, arXiv:1803.05407 (the average of the weights at the ends, SWA).

    python -m launch.sweep --config configs/study_snapshots.py --workdir runs/study_snapshots
    cvresearch evaluate --workdir runs/study_snapshots/epochs=60,t_0_epochs=10,seed=0 --ensemble snapshots \\
        --control runs/study_snapshots/epochs=60,t_0_epochs=60,seed=0

LeNet-5 with ReLU, 60 epochs in all, AdamW. M = 1, the single cosine, to 6 are `t_0_epochs` of 60 to 10. Independent
nets of the same total cost have 60 / M epochs each (M = 2, 3, 6), and seeds of their own.
Expected: docs/evidence/snapshots.md. Cost: 300,000 images.
"""

from configs import common

EPOCHS = 60.0
CYCLES, INDEPENDENT = (1, 2, 3, 4, 5, 6), (2, 3, 6)
OTHER_SEEDS = 100  # the seeds of independent nets come after these


def get_config(arg=''):
    c = common.fashion_study(epochs=EPOCHS, batch_size=64, train=5000)
    c.model = dict(name='lenet5_relu')
    c.schedule = dict(name='sgdr', peak=2e-3, t_0_epochs=EPOCHS, t_mult=1.0)
    c.evaluate_every_epochs = c.save_every_epochs = EPOCHS
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        for cycles in CYCLES:
            yield {'epochs': EPOCHS, 'schedule.t_0_epochs': EPOCHS / cycles, 'seed': seed}
        for nets in INDEPENDENT:
            for net in range(nets):
                length, net_seed = EPOCHS / nets, OTHER_SEEDS * (seed + 1) + net
                yield {'epochs': length, 'schedule.t_0_epochs': length, 'seed': net_seed}
