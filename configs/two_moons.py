"""Two crescents of 1,000 points each, six of them labelled: what images without labels can do, in seconds.

Pham et al. 2020 (arXiv:2003.10580), section 3.1 and figure 2: Meta Pseudo Labels separates the moons, supervised
training and pseudo-labels do not. Their nets have two hidden layers of 8 sigmoid units; here two of 32 ReLUs, and the
teacher is consistent under Gaussian noise too (docs/unlabelled.md: what the feedback does without that).

    python -m cvresearch.main --config configs/two_moons.py:meta_pseudo_labels --workdir runs/moons

`:supervised` learns from the six labels alone (also without argument), `:pseudo_labels` from its own classes of the
other 1,994 points, `:uda` by consistency alone, `:feedback` is Meta Pseudo Labels without the teacher's consistency.

Expected: docs/unlabelled.md, ten seeds each.
Cost: 12,000 images; with each batch of six come 498 without labels.
"""

from configs import common


def get_config(arg=''):
    c = common.classification('two_moons', epochs=2000, batch_size=6)  # an epoch is of the six labelled points
    c.eval_batch_size = 500
    c.data.update(labels=6, labels_seed=0)
    c.model = dict(name='mlp', widths=(32, 32))
    c.optimizer = dict(name='adam')
    c.schedule = dict(name='constant', peak=0.01)
    c.log_every_steps = 500
    c.evaluate_every_epochs = c.save_every_epochs = 2000.0
    c.keep_predictions = False
    return common.finish(
        c,
        arg,
        supervised=supervised,
        pseudo_labels=pseudo_labels,
        uda=uda,
        feedback=feedback,
        meta_pseudo_labels=meta_pseudo_labels,
    )


def supervised(c):
    """The six labels alone."""


def pseudo_labels(c):
    _unlabelled(c)
    c.method = dict(name='pseudo_labels')


def uda(c):
    _unlabelled(c)
    c.method = dict(name='uda', temperature=0.5, threshold=0.0)


def meta_pseudo_labels(c):
    _unlabelled(c)
    c.method = dict(
        name='meta_pseudo_labels',
        uda_weight=2.0,
        uda_warmup_steps=500,
        uda_temperature=0.5,
        uda_threshold=0.0,
        wait_steps=0,
    )


def feedback(c):
    meta_pseudo_labels(c)
    c.method.uda_weight = 0.0


def _unlabelled(c):
    c.unlabelled = dict(name='rest', ratio=83, noise=13.5)  # 0.3 standard deviations of the points


def sweep():
    for seed in range(10):
        yield {'seed': seed, 'data.labels_seed': seed}
