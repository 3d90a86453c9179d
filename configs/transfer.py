"""From one set of images to another: the four cases of the lectures' table, with nets and images of a few minutes.

    python -m cvresearch.main --config configs/transfer.py:source5 --workdir runs/source5
    python -m cvresearch.main --config configs/transfer.py:fashion5,few,lpft --config.init.weights=run:runs/source5 \
        --workdir runs/fashion5_few_lpft
    python -m launch.transfer --workdir runs/transfer         # all cells, three seeds, and the table

Stanford's CS231n notes, "Transfer Learning". LeNet-5 with ReLUs (LeCun et al. 1998) learns five classes of
Fashion-MNIST (`source5`: T-shirt, pullover, dress, sandal, sneaker), or all ten (`source10`). It goes on to the other
five (`fashion5`: similar images) or to the digits (`digits`: others). `fashion` are all ten classes, for weights of
photographs (--config.data.image_size=64). `few` are 10 images of each class, `some` 100, and without either all that
there are. The last argument is a method of configs/finetune.py with its rates; none was tuned here.

AdamW, half a cosine, batch 50; 400 updates with few images, 800 with some, 1,800 with all.

Expected: measured, docs/evidence/transfer.md.
Cost: 90,000 images.
"""

from configs import common, finetune

SOURCE, OTHER = (0, 2, 3, 5, 7), (1, 4, 6, 8, 9)  # classes of Fashion-MNIST: tops and shoes in both
BATCH = 50
UPDATES = dict(few=400, some=800)
ALL = 1800


def get_config(arg=''):
    c = common.classification('fashion_mnist', epochs=3.0, batch_size=BATCH)
    c.eval_batch_size = 500
    c.model = dict(name='lenet5_relu')
    c.optimizer = dict(name='adamw', weight_decay=0.01)
    c.schedule = dict(name='cosine', peak=1e-3, warmup_epochs=0.0)
    c.log_every_steps = 100
    _of(c, 'fashion_mnist', 60_000)
    targets = dict(
        source5=lambda c: _of(c, 'fashion_mnist', 30_000, classes=SOURCE),
        source10=lambda c: _of(c, 'fashion_mnist', 60_000),
        fashion5=lambda c: _target(c, 'fashion_mnist', 30_000, classes=OTHER),
        fashion=lambda c: _target(c, 'fashion_mnist', 60_000),
        digits=lambda c: _target(c, 'mnist5k', 4_000),
    )
    amounts = {name: _labels(per_class, UPDATES[name]) for name, per_class in (('few', 10), ('some', 100))}
    return common.finish(c, arg, **targets, **amounts, **finetune.METHODS)


def _of(c, name, images, **more):
    """Takes all images of a data set."""
    c.data = dict(name=name, labels=0, labels_seed=0, **more)
    _long(c, images, ALL)


def _target(c, name, images, **more):
    """Takes them, with a net that is trained already: as configs/finetune.py."""
    _of(c, name, images, **more)
    c.model = dict(name='')  # of the weights
    c.updates.lr_scale = finetune.HEAD
    c.schedule.peak = 3e-4


def _labels(per_class, updates):
    """Returns the argument for so many images of each class, drawn by data.labels_seed."""

    def change(c):
        c.data.labels = per_class * (5 if 'classes' in c.data else 10)
        _long(c, c.data.labels, updates)

    return change


def _long(c, images, updates):
    c.epochs = float(updates * BATCH / images)
    c.evaluate_every_epochs = c.save_every_epochs = c.epochs


def sweep():
    for seed in range(3):
        yield {'seed': seed, 'data.labels_seed': seed}
