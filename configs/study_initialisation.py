"""Initialisation too small, right and too big, ten layers of 500 units (Fashion-MNIST: 5,000 train, 10,000 test).

Stanford CS231n, "Weight initialization" (recalled): ten tanh layers of 500 units keep deviations of 0.21, 0.048, 0.011
and so on to zero with weights of deviation 0.01, are saturated with 1, and pass the signal with Glorot's; ReLU needs
He's (He et al. 2015, arXiv:1502.01852). Batch norm (arXiv:1502.03167) makes small and right ones alike.

    python -m launch.sweep --config configs/study_initialisation.py --workdir runs/study_initialisation
    cvresearch report initialisation runs/study_initialisation/*

Deviations of activations and gradients of the first step are in the records (`watch`); then 3 epochs of SGD with
momentum 0.9 and a rate of 0.01 show whether it learns. Without activations (`act=linear`) the deviations follow a
closed form: each layer multiplies them by the deviation of its weights times the square root of its inputs.
Expected: as said; measured here: docs/evidence/initialisation.md.
Cost: 15,000 images, for each of 20 runs.
"""

from configs import common
from cvresearch.base import sweeps

INITS = ('normal_0.01', 'lecun_fan_in', 'he_fan_in', 'normal_1.0')


def get_config(arg=''):
    c = common.fashion_study(epochs=3, batch_size=64, train=5000)
    c.model = dict(name='mlp', widths=(500,) * 10, act='tanh', norm=False, kernel_init='lecun_fan_in')
    c.optimizer = dict(name='sgd', momentum=0.9)
    c.schedule = dict(name='constant', peak=0.01)
    c.watch = dict(name='layers', every_steps=1000, examples=64)
    c.non_finite = dict(name='skip', in_a_row=1_000_000)  # a net that cannot learn is a result here
    return common.finish(c, arg)


def sweep():
    inits = {'model.kernel_init': INITS}
    nets = [{'model.act': act, 'model.norm': norm} for act in ('tanh', 'relu') for norm in (False, True)]
    return [*sweeps.product(nets, inits), *sweeps.product({'model.act': ['linear'], 'model.norm': [False]}, inits)]
