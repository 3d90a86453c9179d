"""BN-Inception on ImageNet-1k. Ioffe & Szegedy 2015, arXiv:1502.03167, section 4.2: BN-x30.

    python -m cvresearch.main --config configs/bn_inception.py --workdir runs/bn_inception

Paper: SGD with momentum, batches of 32 for each worker, 0.045 (30 times Inception's 0.0015), falling six times faster
than its 4 % in 8 epochs, no dropout, a fifth of the L2 (of GoogLeNet's 2e-4, recalled, which leaves 4e-5), weaker
photometric distortions (none here), thorough shuffling. 6 million steps of 32 are 150 epochs. Ours: synchronous.
Expected: 74.8 % top-1, 92.2 % top-5, one crop (25.2 and 7.82 % error; verified: figures 3 and 4).
Cost: 192 M images; 11 device-hours.

`:inception_v2` is the net with the separable stem: 73.9 and 91.8 % (TF-slim). `:x5` is the paper's BN-x5, at five
times the rate: 73.0 % top-1 (verified: figure 3). `:modern` is `common.modern_residual`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=150, batch_size=32)
    c.model = dict(name='bn_inception')
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=4e-5)
    c.schedule = dict(
        name='exponential', peak=0.045, every_epochs=8 / 6, rate=0.96, batch_scaling='linear', reference_batch=32
    )
    models = {'inception_v2': 224, 'inception_v2_plain_stem': 224}
    return common.finish(c, arg, models, x5=x5, modern=common.modern_residual)


def x5(c):
    c.schedule.peak = 0.0075


def sweep():
    for peak in (0.0015, 0.0075, 0.045):  # figure 3: baseline, x5, x30
        yield {'schedule.peak': peak}
