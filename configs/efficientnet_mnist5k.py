"""An EfficientNet scaled down by its own rule, on the 5,000 MNIST digits at 64 px (4,000 train, 1,000 test).

Tan & Le 2019, arXiv:1905.11946, equation 3 at phi = -9: width 1.1 ** -9 = 0.42, depth 1.2 ** -9 = 0.19 (one block a
stage), resolution 224 * 1.15 ** -9 = 64 pixels. About 2 ** -9 of B0's cost by the rule. Drop rates and the length are
this project's; the rest of the recipe is the paper's (configs/efficientnet_b0.py), the rate scaled to the batch.

    python -m cvresearch.main --config configs/efficientnet_mnist5k.py --workdir runs/efficientnet_mnist5k

Expected: measured, docs/recipes_mnist.md.
Cost: 120,000 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k(epochs=30)
    c.data.image_size = 64
    c.augment.shift = 4
    c.model = dict(
        name='efficientnet_b0', width=1.1**-9, depth=1.2**-9, stochastic_depth=0.0, dropout=0.1, bn_momentum=0.95
    )
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5)
    c.schedule = dict(name='cosine', peak=0.256, warmup_epochs=1.0, batch_scaling='linear', reference_batch=4096)
    c.average = dict(name='ema', decay=0.99)
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
