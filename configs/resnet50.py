"""ResNet-50, 101 and 152 on ImageNet-1k. He et al. 2015, arXiv:1512.03385, section 3.4.

    python -m cvresearch.main --config configs/resnet50.py --workdir runs/resnet50
    python -m cvresearch.main --config configs/resnet50.py:resnet50,modern --workdir runs/resnet50_modern

Paper: SGD with momentum 0.9, batch 256, weight decay 1e-4, 0.1 divided by ten when the error plateaus, 600,000 steps
(120 epochs), no dropout; short side drawn from 256 to 480 pixels, crops of 224, flips, AlexNet's colours. Ours: the
error is of 10,000 images held out; batch norm over 32 examples, as on the paper's eight GPUs (recalled).
Expected: 75.3 % top-1, 92.2 % top-5, one crop (verified: the authors' Caffe models); 77.15 and 93.29 % over ten
(verified: table 3). `:resnet101_v1` 76.4 and 92.9 %, `:resnet152_v1` 77.0 and 93.3 % (one crop; verified likewise).
Cost: 153 M images; 16 device-hours.

`:resnet50`, `:resnet101`, `:resnet152` have the stride in the 3x3 convolution. `:goyal` is Goyal et al. 2017,
arXiv:1706.02677: batch 8,192, five epochs of warm-up, 90 epochs; 76.3 % (recalled: its table 1, 23.74 % error).
`:modern` is `common.modern_residual`: `:resnet50,modern` 80.9 %, `:resnet101,modern` 81.9 %, `:resnet152,modern` 82.3
% (verified: torchvision's IMAGENET1K_V2).
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=120, batch_size=256)
    c.model = dict(name='resnet50_v1')
    c.minival = 10_000
    c.transform.train.crop = dict(name='resize_random_crop', size=224, low=256, high=480)
    c.transform.train.lighting = 0.1
    c.batch_norm.group_size = 32
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(
        name='plateau', peak=0.1, rate=0.1, end=1e-4, split='minival', batch_scaling='linear', reference_batch=256
    )
    models = dict.fromkeys(('resnet101_v1', 'resnet152_v1', 'resnet50', 'resnet101', 'resnet152'), 224)
    return common.finish(
        c, arg, models, goyal=goyal, modern=common.modern_residual, smoke_model=dict(stage_sizes=(1, 1, 1, 1))
    )


def goyal(c):
    c.epochs, c.batch_size, c.minival = 90.0, 8192, 0
    c.transform.train.crop = dict(name='random_resized_crop', size=224)
    c.transform.train.update(brightness=0.4, contrast=0.4, saturation=0.4)
    c.model.zero_init_last = True
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=1e-4)  # no decay of batch norm
    c.schedule = dict(
        name='multistep',
        peak=0.1,
        epochs=(30, 60, 80),
        rate=0.1,
        warmup_epochs=5.0,
        batch_scaling='linear',
        reference_batch=256,
    )


def sweep():
    for seed in range(3):
        yield {'seed': seed}
