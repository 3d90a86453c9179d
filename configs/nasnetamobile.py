"""NASNet-A (4 @ 1056) on ImageNet-1k at 224 px. Zoph et al. 2017, arXiv:1707.07012, appendix A.4.

    python -m cvresearch.main --config configs/nasnetamobile.py --workdir runs/nasnetamobile

Paper and TF-slim (all recalled): synchronous RMSProp with decay 0.9 and epsilon 1.0, batch 32 on each of 50 workers,
rate 0.04 times 0.97 every 2.4 epochs, gradients clipped at 10, label smoothing 0.1, weight decay 4e-5, an average
with 0.9999, no scheduled drop-path for the mobile net, auxiliary head of weight 0.4 (here none: the variant has no
such head). The length, 250 epochs, is this project's choice.
Expected: 74.0 % top-1, 91.6 % top-5, one crop (verified; Keras's weights 74.4 and 91.9 %).
Cost: 320 M images; 50 device-hours.

`:modern` is `common.modern_mobile`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=250, batch_size=1600)
    c.model = dict(name='nasnetamobile')
    c.batch_norm.group_size = 32
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1.0, weight_decay=4e-5)
    c.updates.clip_norm = 10.0
    c.schedule = dict(
        name='exponential', peak=0.04, every_epochs=2.4, rate=0.97, batch_scaling='linear', reference_batch=1600
    )
    c.average = dict(name='ema', decay=0.9999)
    return common.finish(c, arg, smoke_size=32, modern=common.modern_mobile, smoke_model=dict(cells=1))


def sweep():
    for seed in range(3):
        yield {'seed': seed}
