"""Five ways to learn from few labels: the digits and Fashion-MNIST with 100 to 3,000 labels, the rest without.

    python -m cvresearch.main --config configs/few_labels.py:fixmatch --workdir runs/few_labels_fixmatch
    python -m launch.chain --config configs/few_labels.py --workdir runs/few_labels_noisy_student
    python -m launch.chain --config configs/few_labels.py:meta_pseudo_labels --workdir runs/few_labels_mpl
    python -m cvresearch.main --config configs/few_labels.py:fashion,labels600,uda --workdir runs/few_labels_fashion
    python -m launch.few_labels --workdir runs/few_labels                                        # the whole table

LeNet-5 with ReLUs, Adam, half a cosine, 600 updates of 50 labelled images, whatever the method, so that all have as
many updates; images without labels come beside. `:supervised` (also without argument) learns from the labels alone,
`:pseudo_labels` is Lee 2013, `:fixmatch` Sohn et al. 2020, `:uda` Xie et al. 2019, `:meta_pseudo_labels` Pham et al.
2020. `labels600` and the like come before the method, whose length goes by theirs.

The chain is Noisy Student (Xie et al. 2019), a teacher and three students; with `:curriculum` Curriculum Labeling
(Cascante-Bonilla et al. 2020, arXiv:2001.06001), five nets from scratch, which learn from the surest fifth of each
class, from two fifths, and so on; with `:meta_pseudo_labels` its student trained on from the labels alone.

The lengths, which are short, the thresholds and the weights are this project's choice for images of this size, and were
not tuned; the papers' are in the files beside and in `docs/unlabelled.md`.

Expected: on MNIST with all of its 60,000 images and a net of one hidden layer, error with 100, 600, 1,000 and 3,000
labels: labels alone 21.89, 8.57, 6.59 and 3.72 %, pseudo-labels 16.15, 5.03, 4.30 and 2.80 % (recalled: Lee 2013, table
1). What was measured here: docs/unlabelled.md.
Cost: 30,000 images, and those without labels.
"""

from configs import common

UPDATES, BATCH = 600, 50
STRONG = dict(name='rest', ratio=2, policy=dict(name='rand_augment', layers=2, magnitude=10.0), cutout=8)


def get_config(arg=''):
    c = common.classification('mnist5k', epochs=UPDATES * BATCH / 100, batch_size=BATCH)
    c.eval_batch_size = 500
    c.data.update(labels=100, labels_seed=0)
    c.augment.shift = 2
    c.model = dict(name='lenet5_relu')
    c.optimizer = dict(name='adamw', weight_decay=0.01)
    c.schedule = dict(name='cosine', peak=1e-3)
    c.average = dict(name='ema', decay=0.99)
    c.log_every_steps = 100
    c.evaluate_every_epochs = c.save_every_epochs = c.epochs
    return common.finish(
        c,
        arg,
        supervised=lambda c: None,
        curriculum=lambda c: None,  # of the chain alone
        fashion=fashion,
        pseudo_labels=pseudo_labels,
        fixmatch=fixmatch,
        uda=uda,
        meta_pseudo_labels=meta_pseudo_labels,
        labels600=labels(600),
        labels1000=labels(1000),
        labels3000=labels(3000),
    )


def labels(number):
    """Returns the variant with so many labels and as many updates."""

    def change(c):
        c.data.labels = number
        c.epochs = float(UPDATES * BATCH / number)
        c.evaluate_every_epochs = c.save_every_epochs = c.epochs

    return change


def fashion(c):
    c.data.name = 'fashion_mnist'
    c.augment.flip = True


def pseudo_labels(c):
    c.unlabelled = dict(name='rest', ratio=2)
    c.method = dict(name='pseudo_labels', begin_epochs=c.epochs / 6, full_epochs=c.epochs, weight=1.0)


def fixmatch(c):
    c.unlabelled = dict(STRONG)
    c.method = dict(name='fixmatch', threshold=0.95)


def uda(c):
    c.unlabelled = dict(STRONG)
    c.method = dict(name='uda', threshold=0.8, temperature=0.4)


def meta_pseudo_labels(c):
    c.unlabelled = dict(STRONG)
    c.method = dict(
        name='meta_pseudo_labels',
        uda_weight=1.0,
        uda_warmup_steps=UPDATES // 6,
        uda_temperature=0.4,
        uda_threshold=0.8,
        wait_steps=UPDATES // 10,
    )


def chain(arg=''):
    """Noisy Student, a teacher and three students that see their images harder; Curriculum Labeling; or Meta Pseudo
    Labels, and its student trained on from the labels alone."""
    if 'meta_pseudo_labels' in arg.split(','):
        labelled = {'method.name': 'supervised', 'unlabelled.name': 'none'}
        shorter = {'epochs': get_config(arg).epochs / 3, 'schedule.peak': 1e-4}
        return [{}, labelled | shorter | {'init.weights': '{previous}', 'init.head': 'keep'}]
    student = {
        'method.name': 'soft_labels',
        'unlabelled.name': 'rest',
        'unlabelled.ratio': 2,
        'unlabelled.threshold': 0.5,
        'augment.cutout': 8,
    }
    if 'curriculum' in arg.split(','):
        surest = student | {'unlabelled.hard': True, 'unlabelled.threshold': 0.0}
        return [{}, *(surest | {'unlabelled.best': fifths / 5} for fifths in range(1, 6))]
    return [{}, student, student, student]


def sweep():
    for seed in range(3):
        yield {'seed': seed, 'data.labels_seed': seed}
