"""MobileNetV2 on ImageNet-1k. Sandler et al. 2018, arXiv:1801.04381, section 6.1.

    python -m cvresearch.main --config configs/mobilenetv2_100.py --workdir runs/mobilenetv2_100

Paper: RMSProp with decay and momentum 0.9, 0.045 times 0.98 each epoch, weight decay 4e-5, batch 96 on each of 16
asynchronous workers. Not in the paper, from TF-slim (recalled): epsilon 1.0, an average with 0.9999; 300 epochs are
this project's choice. Ours: the workers are one synchronous batch, normed in groups of 96.
Expected, top-1, one crop: 72.0 %, `:mobilenetv2_140` 74.7 % (verified: table 4); `:mobilenetv2_075` 69.8,
`:mobilenetv2_050` 65.4, `:mobilenetv2_035` 60.3 % (verified: TF-slim's weights).
Cost: 384 M images; 32 device-hours.

`:modern` is `common.modern_mobile`; `:mobilenetv2_140,modern` 76.5 % (verified: timm's mobilenetv2_140.ra_in1k).
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=300, batch_size=1536)
    c.model = dict(name='mobilenetv2_100')
    c.batch_norm.group_size = 96
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1.0, weight_decay=4e-5)
    c.schedule = dict(
        name='exponential', peak=0.045, every_epochs=1.0, rate=0.98, batch_scaling='linear', reference_batch=1536
    )
    c.average = dict(name='ema', decay=0.9999)
    models = dict.fromkeys([f'mobilenetv2_{width}' for width in ('035', '050', '075', '130', '140')], 224)
    return common.finish(c, arg, models, modern=common.modern_mobile)


def sweep():
    for width in ('035', '050', '075', '100', '130', '140'):
        yield {'model.name': f'mobilenetv2_{width}'}
