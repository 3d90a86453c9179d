"""A linear classifier on CIFAR-10, as Stanford's CS231n opens with.

    python -m cvresearch.main --config configs/softmax_regression_cifar10.py --workdir runs/softmax_regression_cifar10

3,072 pixels, ten classes, 30,730 parameters. The recipe is this project's. `:hinge` is the course's multiclass hinge
loss.
Expected: about 38 to 40 % top-1 (recalled: what the course's exercise reaches).
Cost: 1.5 M images; 0.021 device-hours.
"""

from configs import common


def get_config(arg=''):
    c = common.cifar(epochs=30, batch_size=128)
    c.model = dict(name='softmax_regression_cifar10')
    c.augment.shift = 0
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4)
    c.schedule = dict(name='cosine', peak=0.001, batch_scaling='linear', reference_batch=128)
    return common.finish(c, arg, hinge=hinge)


def hinge(c):
    c.loss = dict(name='multiclass_hinge')


def sweep():
    for loss in ('softmax_cross_entropy', 'multiclass_hinge'):
        yield {'loss.name': loss}
