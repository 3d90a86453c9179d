"""One tiny training, and each feature that a resumed run could get wrong as an argument: the rows of the kill matrix.

16 steps of 8 images; evaluations at 4, 8, 12 and 16, saves at every second step, log lines at every fifth. The net is
the smallest of the catalogue with batch norm, a DenseNet of one layer, or the smallest that has the feature.

    python -m cvresearch.main --config tests/kill_config.py:ema --workdir DIR
"""

from pathlib import Path

from configs import common

HERE = Path(__file__).parent
RUNS, LABELS = HERE / 'engine/data/runs', HERE / 'engine/data/kill_labels.npz'
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
    c.init.weights = f'run:{RUNS / "softmax_ema_plateau"}'


def _tuned(c, **method):
    """From the weights of another run of the same net; a method of fine-tuning says what learns when."""
    c.data.image_size = 6
    c.model = dict(name='')
    c.init.weights = f'run:{RUNS / "densenet_one_optimizer_group"}'
    c.finetune = method


def probe(c):
    """The head alone learns; statistics of norms stay."""
    _tuned(c, name='probe')


def gradual(c):
    """One group of layers more learns after each period, all from the middle of the run on."""
    _tuned(c, name='gradual', until=0.5)


def lpft(c):
    """The head alone learns until the middle of the run, then all."""
    _tuned(c, name='lpft', until=0.5)


def _half_labelled(c, **method):
    """64 images keep their labels, the other 64 lose them; 16 steps and their saves and evaluations as before."""
    c.data.labels = 4 * STEPS
    c.epochs, c.evaluate_every_epochs, c.save_every_epochs = 2.0, 0.5, 0.25
    c.unlabelled = dict(name='rest', cutout=3)
    c.method = method


def pseudo_labels(c):
    _half_labelled(c, name='pseudo_labels', begin_epochs=0.5, full_epochs=1.5)


def fixmatch(c):
    _half_labelled(c, name='fixmatch', threshold=0.11)


def uda(c):
    _half_labelled(c, name='uda', threshold=0.11, warmup_steps=8)


def meta_pseudo_labels(c):
    _half_labelled(c, name='meta_pseudo_labels', wait_steps=4, uda_warmup_steps=8, uda_threshold=0.11)


def soft_labels(c):
    """Labels of a file, which `python -m tests.kill_config` writes."""
    _half_labelled(c, name='soft_labels')
    c.unlabelled = dict(name='rest', labels=str(LABELS))


def balanced(c):
    """Classes by shares; the images have as many of each, so that it is the order that differs."""
    c.sampling = dict(name='balanced')


def early_stopping(c):
    """Ends after two evaluations without a gain, which no evaluation is: at step 12 of 16."""
    c.data.train, c.minival = 8 * (STEPS + 4), 32
    c.early_stopping = dict(name='patience', patience=2, min_delta=100.0)


def multi_label(c):
    """Two labels an image; evaluations keep the logits, of which the mean average precision is made."""
    c.plugins = (str(HERE / 'kill_sources.py'),)
    c.data = dict(name='fake_several', train=8 * STEPS, test=32)
    c.loss = dict(name='sigmoid_cross_entropy')


def pruning(c):
    """In three rounds, with dropout that shrinks and an average."""
    c.model = dict(name='mlp', widths=(24,), dropout=0.5)
    c.average = dict(name='ema', decay=0.9)
    c.compress = dict(name='prune', share=0.9, schedule='iterative', begin_epochs=0.25, end_epochs=0.7, rounds=3)


def sharing(c):
    """The weights take eight values, which are trained."""
    c.compress = dict(name='share', bits=3)


FEATURES = dict(
    plain=plain,
    mixing=mixing,
    ema=ema,
    sam=sam,
    stochastic_depth=stochastic_depth,
    resizing=resizing,
    accumulation=accumulation,
    snapshots=snapshots,
    freezing=freezing,
    warm_start=warm_start,
    probe=probe,
    gradual=gradual,
    lpft=lpft,
    pseudo_labels=pseudo_labels,
    fixmatch=fixmatch,
    uda=uda,
    meta_pseudo_labels=meta_pseudo_labels,
    soft_labels=soft_labels,
    balanced=balanced,
    early_stopping=early_stopping,
    multi_label=multi_label,
    pruning=pruning,
    sharing=sharing,
)


def main():
    """Writes the labels of `soft_labels`: random distributions of the images that are without a label."""
    import numpy as np

    from cvresearch.data import identity, sources
    from cvresearch.data.given_labels import LabelFile

    config = get_config('pseudo_labels')
    source = sources.load(config.data, without_labels=config.unlabelled)
    random, images = np.random.default_rng(0), source.unlabelled
    probabilities = random.dirichlet(np.ones(len(source.facts.class_names)), len(images)).astype(np.float32)
    digest = identity.images_sha256(images.base)
    LabelFile(probabilities, source.facts.class_names, digest, 'no net: random numbers').save(LABELS)


if __name__ == '__main__':
    main()
