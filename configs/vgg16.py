"""VGG-16 (configuration D) on ImageNet-1k. Simonyan & Zisserman 2014, arXiv:1409.1556, section 3.1.

    python -m cvresearch.main --config configs/vgg16.py --workdir runs/vgg16

Paper: SGD with momentum, batch 256, weight decay 5e-4, dropout in both hidden dense layers, 0.01 divided by ten when
the validation accuracy stops improving (three times), 370,000 steps (74 epochs); the short side drawn from 256 to 512
pixels, crops of 224, flips, AlexNet's colours. Ours: the accuracy is of 10,000 images held out; the deep nets start
from random weights (Glorot, which the authors found to do after submission), not from net A.
Expected: 74.4 % top-1, 91.9 % top-5 (25.6 and 8.1 % error, dense evaluation at 384 pixels, trained at 256 to 512;
verified: table 3). One crop of torchvision's weights: 71.6 and 90.4 % (verified). `:vgg11` 70.4, `:vgg11_lrn` 70.3,
`:vgg13` 71.3 (all trained at 256), `:vgg16_c` 72.7, `:vgg19` 74.5 % top-1 (dense; verified: table 3).
Cost: 94.1 M images; 40 device-hours. (Paper: two to three weeks on four Titan Black.)

`:modern` is `common.modern_plain`; no number is known for it. With batch norm: configs/vgg16_bn.py.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=74, batch_size=256)
    c.model = dict(name='vgg16')
    c.minival = 10_000
    c.transform.train.crop = dict(name='resize_random_crop', size=224, low=256, high=512)
    c.transform.train.lighting = 0.1
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=5e-4)
    c.schedule = dict(
        name='plateau', peak=0.01, rate=0.1, end=1e-5, split='minival', batch_scaling='linear', reference_batch=256
    )
    models = dict.fromkeys(('vgg11', 'vgg11_lrn', 'vgg13', 'vgg16_c', 'vgg19'), 224)
    return common.finish(c, arg, models, smoke_size=224, modern=common.modern_plain)


def sweep():
    for low, high in ((256, 256), (384, 384), (256, 512)):  # table 3: S = 256, 384, [256; 512]
        yield {'transform.train.crop.low': low, 'transform.train.crop.high': high}
