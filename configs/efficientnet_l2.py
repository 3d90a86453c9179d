"""EfficientNet-L2 on ImageNet-1k. Xie et al. 2019 (Noisy Student), arXiv:1911.04252, section 3.1.

    python -m cvresearch.main --config configs/efficientnet_l2.py --workdir runs/efficientnet_l2

Paper: a student learns ImageNet and the pseudo-labels of a teacher on 300 million unlabelled photographs (JFT), with
dropout 0.5, stochastic depth 0.2 and RandAugment of 2 operations at magnitude 27; batch 2,048, 350 epochs, 0.128
times 0.97 every 2.4 epochs (the last three recalled). JFT is not public: THIS RECIPE CANNOT BE REPRODUCED HERE. What
the file does is the student's half on ImageNet alone; `--config.distillation.teacher=WORKDIR` adds a teacher.
Expected: nothing known for ImageNet alone. Paper, with JFT: 88.4 % top-1, 98.7 % top-5 at 800 pixels; 88.2 % at 475
(verified; timm's copies 88.4 and 88.2 %).
Cost: 448 M images; 59,000 device-hours, of ImageNet alone.

`:efficientnet_l2_475` trains at 475 pixels. `:smoke` is of B0's width and depth: L2's 480 million parameters do not
fit.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=350, batch_size=2048, image_size=800)
    c.model = dict(name='efficientnet_l2')
    c.transform.train.policy = dict(name='rand_augment', layers=2, magnitude=27)
    c.remat = True
    c.batch_norm.group_size = 64
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5)
    c.schedule = dict(
        name='exponential',
        peak=0.128,
        every_epochs=2.4,
        rate=0.97,
        warmup_epochs=5.0,
        batch_scaling='linear',
        reference_batch=2048,
    )
    c.average = dict(name='ema', decay=0.9999)
    return common.finish(c, arg, {'efficientnet_l2_475': 475}, smoke_size=32, smoke_model=dict(width=1.0, depth=0.2))


def sweep():
    for seed in range(3):
        yield {'seed': seed}
