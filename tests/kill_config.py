"""One tiny training, and each feature that a resumed run could get wrong as an argument: the rows of the kill matrix.

16 steps of 8 images; evaluations at 4, 8, 12 and 16, saves at every second step, log lines at every fifth. The net is
the smallest of the catalogue with batch norm, a DenseNet of one layer, or the smallest that has the feature.

    python -m cvresearch.main --config tests/kill_config.py:ema --workdir DIR
"""

from pathlib import Path

from configs import common

STEPS, RESTARTS, SIZE_CHANGES = 16, (4, 8, 12), (6, 11)


def get_config(arg=''):
    c = common.classification('fake', epochs=1.0, batch_size=8)
    c.data = dict(name='fake', image_size=8, channels=1, classes=10, train=8 * STEPS, test=32)
    c.eval_batch_size = 32
    c.augment.shift = 1
    c.model = dict(name='densenet40_k12_cifar10', layers=(1,), growth=4, stem_width=8)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4)
    c.schedule = dict(name='cosine', peak=0.05)
    c.mesh.data = 1
    c.log_every_steps = 5
    c.evaluate_every_epochs = 0.25
    c.save_every_epochs = 0.125
    return common.finish(c, arg, **FEATURES)


def plain(c):
    """Nothing added."""


def mixing(c):
    c.mixing.update(mixup=0.2, cutmix=1.0)


def ema(c):
    c.average = dict(name='ema', decay=0.9)


def sam(c):
    c.updates.sam = 0.05


def stochastic_depth(c):
    """And dropout."""
    c.data.image_size = 16
    c.model = dict(
        name='dm_nfnet_f0', depths=(2, 0, 0, 0), widths=(8, 8, 8, 8), stem_width=8, dropout=0.3, stochastic_depth=0.5
    )


def resizing(c):
    """Images of 6, 7 and 8 pixels and more and more mixup, in three stages that begin at SIZE_CHANGES."""
    c.resize = dict(name='efficientnet_v2', stages=3, size=(6, 8), mixup=(0.0, 0.2))


def accumulation(c):
    c.updates.accumulate = 4


def snapshots(c):
    """Warm restarts, each with a snapshot, at RESTARTS."""
    c.schedule = dict(name='sgdr', peak=0.05, t_0_epochs=0.25)


def freezing(c):
    """The dense layer learns from the middle of the run on, and the stem never."""
    c.updates.freeze = (('stage1_block0', 0.5), 'stem_conv')


def warm_start(c):
    """From the weights of a run of an older version, and a new head."""
    c.data.update(image_size=4, classes=5)
    c.augment.shift = 0
    c.model = dict(name='')
    c.init.weights = f'run:{Path(__file__).parent / "engine/data/runs/softmax_ema_plateau"}'


def probe(c):
    """The head alone learns; statistics of norms stay."""
    c.updates.freeze = ('stem_conv', 'stage1_.*', 'last_.*')


def gradual(c):
    """The dense block learns from a quarter of the run on, the stem from its middle on."""
    c.updates.freeze = (('stage1_block0', 0.25), ('stem_conv', 0.5))


FEATURES = dict(
    plain=plain, mixing=mixing, ema=ema, sam=sam, stochastic_depth=stochastic_depth, resizing=resizing,
    accumulation=accumulation, snapshots=snapshots, freezing=freezing, warm_start=warm_start, probe=probe,
    gradual=gradual,
)  # fmt: skip
