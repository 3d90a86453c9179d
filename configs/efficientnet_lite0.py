"""EfficientNet-Lite0 to Lite4 on ImageNet-1k. Nets for small devices, 2020: tensorflow/tpu, efficientnet/lite.

    python -m cvresearch.main --config configs/efficientnet_lite0.py --workdir runs/efficientnet_lite0

No paper. The recipe of configs/efficientnet_b0.py, with RandAugment (recalled) and pixels as (x - 127) / 128.
Expected, top-1, one crop, float32 (verified: the authors' table): Lite0 75.1 %, Lite1 76.7, Lite2 77.6, Lite3 79.8,
Lite4 81.5.
Cost: 448 M images; 48 device-hours.

`:modern` is `common.modern_mobile`; no number is known for it.
"""

from configs import common

SIZES = {'lite0': 224, 'lite1': 240, 'lite2': 260, 'lite3': 280, 'lite4': 300, 'lite3_300': 300, 'lite4_380': 380}


def get_config(arg=''):
    c = common.imagenet(epochs=350, batch_size=4096)
    c.model = dict(name='efficientnet_lite0')
    c.normalize.update(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    c.transform.train.policy = dict(name='rand_augment', layers=2, magnitude=9)
    c.transform.eval.crop = dict(name='center_crop_resize', size=224, margin=32)
    c.batch_norm.group_size = 64
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
    models = {f'efficientnet_{name}': size for name, size in SIZES.items()}
    return common.finish(c, arg, models, smoke_size=32, modern=common.modern_mobile, smoke_model=dict(depth=0.2))


def sweep():
    for seed in range(3):
        yield {'seed': seed}
