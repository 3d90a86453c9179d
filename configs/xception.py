"""Xception on ImageNet-1k at 299 px. Chollet 2016, arXiv:1610.02357, section 4.2.

    python -m cvresearch.main --config configs/xception.py --workdir runs/xception

Paper: SGD with momentum 0.9, 0.045 times 0.94 every two epochs, weight decay 1e-5 (tuned for this net), dropout 0.5,
Polyak averaging, no auxiliary head, 60 synchronous workers. Not in the paper: the batch, 32 for each worker here, and
the length, 120 epochs here.
Expected: 79.0 % top-1, 94.5 % top-5, one crop of 299 (verified: the paper, and Keras's weights).
Cost: 154 M images; 360 device-hours. (Paper: about three days on 60 K80.)

`:modern` is `common.modern_mobile` at 299 pixels; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=120, batch_size=1920, image_size=299)
    c.model = dict(name='xception')
    c.batch_norm.group_size = 32
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-5)
    c.schedule = dict(
        name='exponential', peak=0.045, every_epochs=2.0, rate=0.94, batch_scaling='linear', reference_batch=1920
    )
    c.average = dict(name='polyak')
    return common.finish(c, arg, modern=common.modern_mobile)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
