"""A sweep of 12 small runs, or of 4 with :few, which the launchers' tests run."""

from configs import common
from cvresearch.base import sweeps


def get_config(arg=''):
    c = common.mnist5k(epochs=1)
    c.model = dict(name='softmax_regression')
    c.data = dict(name='fake', image_size=8, channels=1, classes=4, train=512, test=128)
    c.batch_size = 32
    c.eval_batch_size = 128
    c.schedule.warmup_epochs = 0.1
    c.save_every_epochs = 0.25
    c.mesh.data = 1
    return common.finish(c, arg, few=lambda c: None, two=lambda c: None)


def sweep(arg=''):
    shifts, seeds = {'few': ([0], range(2)), 'two': ([0], [0])}.get(arg, ([0, 1], range(3)))
    return sweeps.product({'schedule.peak': [1e-3, 4e-3], 'augment.shift': shifts, 'seed': seeds})
