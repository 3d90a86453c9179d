"""Inception-v4 on ImageNet-1k at 299 px. Szegedy et al. 2016, arXiv:1602.07261, section 4.

    python -m cvresearch.main --config configs/inception_v4.py --workdir runs/inception_v4

Paper: RMSProp with decay 0.9 and epsilon 1.0, 0.045 times 0.94 every two epochs, 20 workers, a running average of the
weights. Not in the paper, as for Inception-v3 in TF-slim (recalled): batches of 32, momentum 0.9, weight decay 4e-5,
label smoothing 0.1, the average's 0.9999. About 160 epochs are read off its figures (recalled). Ours: one synchronous
batch.
Expected: 80.0 % top-1, 95.0 % top-5, one crop of 299, validation images that are not blacklisted (20.0 and 5.0 %
error; verified: table 2). TF-slim's weights on all 50,000: 80.1 and 95.0 % (verified: timm).
Cost: 205 M images; 70 device-hours.

`:modern` is `common.modern_residual` at 299 pixels; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=160, batch_size=640, image_size=299)
    c.model = dict(name='inception_v4')
    c.transform.train.update(brightness=0.4, contrast=0.4, saturation=0.4)
    c.batch_norm.group_size = 32
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1.0, weight_decay=4e-5)
    c.schedule = dict(
        name='exponential', peak=0.045, every_epochs=2.0, rate=0.94, batch_scaling='linear', reference_batch=640
    )
    c.average = dict(name='ema', decay=0.9999)
    return common.finish(c, arg, smoke_size=75, modern=common.modern_residual)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
