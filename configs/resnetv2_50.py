"""Pre-activation ResNets on ImageNet-1k. He et al. 2016, arXiv:1603.05027, section 5.

    python -m cvresearch.main --config configs/resnetv2_50.py:resnetv2_200 --workdir runs/resnetv2_200

Paper: as the ResNets of 2015, from scratch on eight GPUs, batch 256, 0.1 divided by ten after 30 and 60 of 90 epochs
(the epochs are recalled); crops of 224 from short sides of 256 to 480 pixels, and `:aspect` with the crops of
GoogLeNet.
Expected, top-1, one crop of 320 pixels: `:resnetv2_152` 78.9 % and 94.5 % top-5, `:resnetv2_200` 79.3 and 94.7 %,
`:resnetv2_200,aspect` 79.9 and 95.2 % (verified: table 5). At 224, Keras's weights: 76.0 (50), 77.2 (101), 78.0
(152).
Cost: 115 M images; 13 device-hours.

`:resnetv2_50_keras` and the like have Keras's strides. `:modern` is `common.modern_residual`; no number is known for
it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=90, batch_size=256)
    c.model = dict(name='resnetv2_50')
    c.transform.train.crop = dict(name='resize_random_crop', size=224, low=256, high=480)
    c.transform.train.lighting = 0.1
    c.batch_norm.group_size = 32
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(
        name='multistep', peak=0.1, epochs=(30, 60), rate=0.1, batch_scaling='linear', reference_batch=256
    )
    names = ('resnetv2_101', 'resnetv2_152', 'resnetv2_200')
    names += ('resnetv2_50_keras', 'resnetv2_101_keras', 'resnetv2_152_keras')
    return common.finish(
        c,
        arg,
        dict.fromkeys(names, 224),
        aspect=aspect,
        modern=common.modern_residual,
        smoke_model=dict(stage_sizes=(1, 1, 1, 1)),
    )


def aspect(c):
    c.transform.train.crop = dict(name='random_resized_crop', size=224)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
