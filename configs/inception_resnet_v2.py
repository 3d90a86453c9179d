"""Inception-ResNet-v2 on ImageNet-1k at 299 px. Szegedy et al. 2016, arXiv:1602.07261, section 4.

    python -m cvresearch.main --config configs/inception_resnet_v2.py --workdir runs/inception_resnet_v2

The recipe of configs/inception_v4.py; its doubts hold here too. Residuals are scaled down (section 3.3) in the net.
Expected: 80.1 % top-1, 95.1 % top-5, one crop of 299, validation images that are not blacklisted (19.9 and 4.9 % error;
verified: table 2). TF-slim's weights on all 50,000: 80.4 and 95.3 % (verified: timm).
Cost: 205 M images; 75 device-hours.

`:modern` is `common.modern_residual` at 299 pixels; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=160, batch_size=640, image_size=299)
    c.model = dict(name='inception_resnet_v2')
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
