"""NASNet-A (6 @ 4032) on ImageNet-1k at 331 px. Zoph et al. 2017, arXiv:1707.07012, appendix A.4.

    python -m cvresearch.main --config configs/nasnetalarge.py --workdir runs/nasnetalarge

The recipe of configs/nasnetamobile.py (all recalled) with 100 workers of 16 images, rate 0.015, and scheduled
drop-path of 0.3, which also grows with the step in the paper and here only with depth.
Expected: 82.7 % top-1, 96.2 % top-5, one crop of 331 (verified; timm's weights 82.6 and 96.0 %).
Cost: 320 M images; 2,100 device-hours.

`:modern` is `common.modern_mobile` at 331 pixels; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=250, batch_size=1600, image_size=331)
    c.model = dict(name='nasnetalarge')
    c.batch_norm.group_size = 16
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1.0, weight_decay=4e-5)
    c.updates.clip_norm = 10.0
    c.schedule = dict(
        name='exponential', peak=0.015, every_epochs=2.4, rate=0.97, batch_scaling='linear', reference_batch=1600
    )
    c.average = dict(name='ema', decay=0.9999)
    return common.finish(c, arg, smoke_size=32, modern=common.modern_mobile, smoke_model=dict(cells=1))


def sweep():
    for seed in range(3):
        yield {'seed': seed}
