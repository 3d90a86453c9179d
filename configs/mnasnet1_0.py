"""MnasNet on ImageNet-1k. Tan et al. 2018, arXiv:1807.11626, section 5.

    python -m cvresearch.main --config configs/mnasnet1_0.py:semnasnet_100 --workdir runs/semnasnet_100

Paper: RMSProp with decay and momentum 0.9, batch 4,096, the rate rising to 0.256 in 5 epochs and then times 0.97
every 2.4, 350 epochs, batch norm with momentum 0.99, weight decay 1e-5, dropout 0.2, Inception's augmentation. From
the authors' code (recalled): epsilon 1e-3, label smoothing 0.1, an average with 0.9999.
Expected, top-1 and top-5, one crop: B1 (the default) 74.5 and 92.1 %, A1 (`:semnasnet_100`) 75.2 and 92.5 %
(verified: the authors' repository), `:mnasnet_small` 66.0 % (verified: table 4). torchvision's weights: `:mnasnet0_5`
67.7, `:mnasnet0_75` 71.2, `:mnasnet1_3` 76.5 %.
Cost: 448 M images; 39 device-hours.

`:modern` is `common.modern_mobile`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=350, batch_size=4096)
    c.model = dict(name='mnasnet1_0')
    c.model.bn_momentum = 0.99
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5)
    c.schedule = dict(
        name='exponential',
        peak=0.256,
        every_epochs=2.4,
        rate=0.97,
        warmup_epochs=5.0,
        batch_scaling='linear',
        reference_batch=4096,
    )
    c.average = dict(name='ema', decay=0.9999)
    names = ('mnasnet0_5', 'mnasnet0_75', 'mnasnet1_3', 'mnasnet_140', 'mnasnet_small')
    names += ('semnasnet_050', 'semnasnet_075', 'semnasnet_100', 'semnasnet_140')
    return common.finish(c, arg, dict.fromkeys(names, 224), modern=common.modern_mobile)


def sweep():
    for name in ('mnasnet1_0', 'semnasnet_100'):
        yield {'model.name': name}
