"""Five small things in which reproductions of EfficientNet differ, one at a time, on the 5,000 MNIST digits.

    python -m cvresearch.main --config configs/efficientnet_details_mnist5k.py:bn_momentum --workdir DIR

Tan & Le 2019, arXiv:1905.11946, section 5.2, and the authors' code: batch norm's momentum (0.99; PyTorch's default is
0.9) and epsilon (1e-3; PyTorch's 1e-5), where RMSProp's epsilon stands (inside the root, with an accumulator that
starts at 1; PyTorch's is outside and starts at 0), the average of the weights, drop-connect. The net is B0 at the
width of phi = -9 (configs/efficientnet_mnist5k.py) but of half its depth, ten blocks, since drop-connect needs
shortcuts; the rate is the paper's, scaled to the batch.
`:long` is 40 epochs, in which the recipe converges (docs/evidence/efficientnet.md).
Expected: measured, docs/recipes_mnist.md. The set is small and the run short: a detail that costs a point on ImageNet
need not show here.
Cost: 24,000 images, for each of 18 runs.
"""

from configs import common

DETAILS = {
    'bn_momentum': {'model.bn_momentum': 0.9},
    'bn_eps': {'model.bn_eps': 1e-5},
    'rmsprop': {'optimizer.eps_inside': False, 'optimizer.initial': 0.0},
    'average': {'average.decay': 0.0},
    'drop_connect': {'model.stochastic_depth': 0.0},
}


def get_config(arg=''):
    c = common.mnist5k(epochs=6)
    c.data.pad = 2
    c.model = dict(
        name='efficientnet_b0',
        width=1.1**-9,
        depth=0.5,
        stochastic_depth=0.2,
        dropout=0.1,
        bn_momentum=0.99,
        bn_eps=1e-3,
    )
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(
        name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1e-3, eps_inside=True, initial=1.0, weight_decay=1e-5
    )
    c.schedule = dict(name='cosine', peak=0.256, warmup_epochs=1.0, batch_scaling='linear', reference_batch=4096)
    c.average = dict(name='ema', decay=0.99)
    return common.finish(
        c, arg, smoke_model=dict(depth=0.2), long=long, **{name: changed(detail) for name, detail in DETAILS.items()}
    )


def long(c):
    c.epochs = 40.0


def changed(detail):
    def change(c):
        for key, value in detail.items():
            group, name = key.split('.')
            c[group][name] = value

    return change


def sweep():
    for detail in ({}, *DETAILS.values()):
        for seed in range(3):
            yield {**detail, 'seed': seed}
