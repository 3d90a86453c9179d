"""ResNeXt-50 and 101 on ImageNet-1k. Xie et al. 2016, arXiv:1611.05431, section 4.

    python -m cvresearch.main --config configs/resnext50_32x4d.py --workdir runs/resnext50_32x4d

Paper: SGD with momentum 0.9, batch 256 (32 on each of eight GPUs), weight decay 1e-4, 0.1 divided by ten three times
with the schedule of fb.resnet.torch, and its augmentation. Epochs 30, 60 and 90 of 100 are recalled.
Expected, top-1, one crop: 77.8 % (22.2 % error; verified: the authors' repository). `:resnext101_32x4d` 78.8 and 94.4
% top-5, `:resnext101_64x4d` 79.6 and 94.7 % (verified: table 4).
Cost: 128 M images; 15 device-hours.

`:resnext101_32x8d` (of Mahajan et al. 2018, arXiv:1805.00932, there pretrained on a billion photographs that are not
public) has 79.3 % from ImageNet alone (verified: torchvision's V1). `:modern` is `common.modern_residual`;
`:resnext101_64x4d,modern` 83.2 and 96.5 % (verified: torchvision).
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=100, batch_size=256)
    c.model = dict(name='resnext50_32x4d')
    c.transform.train.update(brightness=0.4, contrast=0.4, saturation=0.4)
    c.transform.train.lighting = 0.1
    c.batch_norm.group_size = 32
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(
        name='multistep', peak=0.1, epochs=(30, 60, 90), rate=0.1, batch_scaling='linear', reference_batch=256
    )
    names = ('resnext101_32x4d', 'resnext101_64x4d', 'resnext101_32x8d', 'resnext101_32x16d', 'resnext101_32x32d')
    return common.finish(
        c, arg, dict.fromkeys(names, 224), modern=common.modern_residual, smoke_model=dict(stage_sizes=(1, 1, 1, 1))
    )


def sweep():
    for seed in range(3):
        yield {'seed': seed}
