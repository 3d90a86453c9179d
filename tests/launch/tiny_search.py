"""A search of small trials, which the launchers' tests run."""

from configs import common
from cvresearch.base import sweeps
from tests.launch import tiny_sweep


def get_config(arg=''):
    with (c := tiny_sweep.get_config()).unlocked():
        c.minival = 128
        c.evaluate_every_epochs = 0.25
    return common.finish(c, arg)


def sweep():
    return sweeps.Search({'schedule.peak': sweeps.log_uniform(1e-6, 1e-2)}, trials=5, sampler='tpe', pruner='median')
