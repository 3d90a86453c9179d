"""SE-ResNets and SE-ResNeXts on ImageNet-1k. Hu et al. 2017, arXiv:1709.01507, section 6.1 and table 2.

    python -m cvresearch.main --config configs/seresnet50.py --workdir runs/seresnet50

Paper: synchronous SGD with momentum 0.9, batch 1,024, 0.6 divided by ten every 30 of 100 epochs; crops of random size
and aspect ratio, flips. Weight decay 1e-4 is recalled.
Expected, top-1 and top-5, one crop: 76.71 and 93.38 % (23.29 and 6.62 % error; verified: table 2), the authors' plain
ResNet-50 75.20 %. `:legacy_seresnet101` 77.62 and 93.93 %, `:legacy_seresnet152` 78.43 and 94.27 %,
`:legacy_seresnext50_32x4d` 78.90 and 94.51 %, `:legacy_seresnext101_32x4d` 79.30 and 94.99 % (verified: table 2).
Cost: 128 M images; 14 device-hours.

`:modern` is `common.modern_residual`; `:seresnet50,modern` is the net with the stride in the 3x3 convolution, for
which timm's recipe A1 (another one) has 80.0 % (verified: timm).
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=100, batch_size=1024)
    c.model = dict(name='legacy_seresnet50')
    c.batch_norm.group_size = 32
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(name='step', peak=0.6, every_epochs=30.0, batch_scaling='linear', reference_batch=1024)
    names = ('legacy_seresnet101', 'legacy_seresnet152', 'legacy_seresnext50_32x4d', 'legacy_seresnext101_32x4d')
    return common.finish(
        c,
        arg,
        dict.fromkeys((*names, 'seresnet50'), 224),
        modern=common.modern_residual,
        smoke_model=dict(stage_sizes=(1, 1, 1, 1)),
    )


def sweep():
    for seed in range(3):
        yield {'seed': seed}
