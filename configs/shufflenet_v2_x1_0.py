"""ShuffleNet v2 on ImageNet-1k. Ma et al. 2018, arXiv:1807.11164, section 4 and the authors' repository.

    python -m cvresearch.main --config configs/shufflenet_v2_x1_0.py --workdir runs/shufflenet_v2_x1_0

Paper: as ShuffleNet. Repository (recalled): batch 1,024, 0.5 falling linearly to 0 over 300,000 steps (240 epochs),
weight decay 4e-5 of kernels, label smoothing 0.1.
Expected, top-1, one crop: 69.4 %, `:shufflenet_v2_x1_5` 72.6 (verified: the authors' repository),
`:shufflenet_v2_x0_5` 60.3, `:shufflenet_v2_x2_0` 74.9 (verified: table 8).
Cost: 307 M images; 12 device-hours.

`:modern` is `common.modern_mobile`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=240, batch_size=1024)
    c.model = dict(name='shufflenet_v2_x1_0')
    c.batch_norm.group_size = 256
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=4e-5)
    c.schedule = dict(name='polynomial', peak=0.5, power=1.0, batch_scaling='linear', reference_batch=1024)
    models = dict.fromkeys([f'shufflenet_v2_x{width}' for width in ('0_5', '1_5', '2_0')], 224)
    return common.finish(c, arg, models, modern=common.modern_mobile)


def sweep():
    for width in ('0_5', '1_0', '1_5', '2_0'):
        yield {'model.name': f'shufflenet_v2_x{width}'}
