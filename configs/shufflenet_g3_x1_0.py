"""ShuffleNet on ImageNet-1k. Zhang et al. 2017, arXiv:1707.01083, section 4.

    python -m cvresearch.main --config configs/shufflenet_g3_x1_0.py --workdir runs/shufflenet_g3_x1_0

Paper: as ResNeXt, but weight decay 4e-5, weaker scale augmentation, and a rate that falls linearly from 0.5 to 0 over
300,000 steps of 1,024 images (240 epochs) on four GPUs. That the weaker crops are of 50 % of the area and more is this
project's choice.
Expected, top-1, one crop (verified: tables 2 and 5): 67.4 %; `:shufflenet_g1_x1_0` 66.4, `:shufflenet_g2_x1_0` 67.3,
`:shufflenet_g4_x1_0` 67.2, `:shufflenet_g8_x1_0` 67.6; `:shufflenet_g3_x0_5` 56.8, `:shufflenet_g3_x1_5` 71.5,
`:shufflenet_g3_x2_0` 73.7.
Cost: 307 M images; 12 device-hours.

`:modern` is `common.modern_mobile`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=240, batch_size=1024)
    c.model = dict(name='shufflenet_g3_x1_0')
    c.transform.train.crop.scale = (0.5, 1.0)
    c.batch_norm.group_size = 256
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=4e-5)
    c.schedule = dict(name='polynomial', peak=0.5, power=1.0, batch_scaling='linear', reference_batch=1024)
    names = [f'shufflenet_g{groups}_x1_0' for groups in (1, 2, 4, 8)]
    names += [f'shufflenet_g3_x{width}' for width in ('0_5', '1_5', '2_0')]
    return common.finish(c, arg, dict.fromkeys(names, 224), modern=common.modern_mobile)


def sweep():
    for groups in (1, 2, 3, 4, 8):  # table 2
        yield {'model.name': f'shufflenet_g{groups}_x1_0'}
