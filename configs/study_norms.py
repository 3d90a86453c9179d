"""Norms at small and large batches (Fashion-MNIST: 10,000 train, 10,000 test): ResNet-8, half as wide.

Batch norm (Ioffe & Szegedy 2015, arXiv:1502.03167), batch renormalization (Ioffe 2017, arXiv:1702.03275), group norm
(Wu & He 2018, arXiv:1803.08494) and none, at batches of 2, 8, 32 and 256 images.

    python -m launch.sweep --config configs/study_norms.py --workdir runs/study_norms

SGD with momentum 0.9, half a cosine over 4 epochs, the rate linear in the batch (0.1 for 128). Groups are of two
channels in the first stage. Bounds of batch renormalization rise over the shares of the run that they have in its
paper's 160,000 steps (recalled).
Expected: Wu & He, figure 5 and table 3: batch norm loses 10 points on ImageNet from batches of 32 to 2, group norm
nothing. Measured here: docs/evidence/norms.md.
Cost: 40,000 images, for each of 48 runs.
"""

from configs import common

EPOCHS, IMAGES = 4, 10_000
BATCHES = (2, 8, 32, 256)


def get_config(arg=''):
    c = common.fashion_study(epochs=EPOCHS, batch_size=32, train=IMAGES)
    c.model = dict(name='resnet20_cifar10', depth=8, width=0.5)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4)
    c.schedule = dict(name='cosine', peak=0.1, batch_scaling='linear', reference_batch=128)
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        for batch in BATCHES:
            steps = EPOCHS * IMAGES // batch
            bounds = dict(begin_steps=steps // 32, r_steps=steps // 4, d_steps=steps * 5 // 32)
            norms = (
                dict(name='batch_norm'), dict(name='batch_renorm', **bounds), dict(name='group_norm', channel_groups=4),
                dict(name='none'),
            )  # fmt: skip
            for norm in norms:
                yield {'batch_size': batch, **{f'batch_norm.{key}': v for key, v in norm.items()}, 'seed': seed}
