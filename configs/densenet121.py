"""DenseNets on ImageNet-1k. Huang et al. 2017, CVPR, arXiv:1608.06993, section 4.2.

    python -m cvresearch.main --config configs/densenet121.py --workdir runs/densenet121

Paper: SGD with Nesterov's momentum 0.9, batch 256, weight decay 1e-4, 0.1 divided by ten after 30 and 60 of 90
epochs, the augmentation of fb.resnet.torch. (For 161 and larger the authors trained 100 epochs with batch 128;
recalled.)
Expected, top-1 and top-5, one crop (verified: table 3): 74.98 and 92.29 %, `:densenet169` 76.20 and 93.15 %,
`:densenet201` 77.42 and 93.66 %, `:densenet264` 77.85 and 93.88 %. `:densenet161` 77.8 % (verified: the authors'
repository, 22.2 % error).
Cost: 115 M images; 9.1 device-hours.

`:modern` is `common.modern_residual`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=90, batch_size=256)
    c.model = dict(name='densenet121')
    c.transform.train.update(brightness=0.4, contrast=0.4, saturation=0.4)
    c.transform.train.lighting = 0.1
    c.batch_norm.group_size = 64
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(
        name='multistep', peak=0.1, epochs=(30, 60), rate=0.1, batch_scaling='linear', reference_batch=256
    )
    models = dict.fromkeys(('densenet161', 'densenet169', 'densenet201', 'densenet264'), 224)
    return common.finish(
        c, arg, models, smoke_size=32, modern=common.modern_residual, smoke_model=dict(layers=(2, 2, 2, 2))
    )


def sweep():
    for seed in range(3):
        yield {'seed': seed}
