"""ZFNet on ImageNet-1k. Zeiler & Fergus 2013, arXiv:1311.2901, section 3.

    python -m cvresearch.main --config configs/zfnet.py --workdir runs/zfnet

Paper: SGD with momentum, batch 128, 0.01 annealed by hand when the validation error plateaus, 70 epochs, dropout, 224
of 256 pixels (centre and corners) with flips; filters of the first layer whose RMS exceeds 0.1 are scaled back to it.
Ours: crops anywhere, the plateau of 10,000 images held out, no such scaling, and AlexNet's weight decay, which the
paper does not mention.
Expected: 61.6 % top-1, 83.5 % top-5 (38.4 and 16.5 % error, ten patches; verified: table 2; the protocol is
recalled). `:zfnet_512_1024_512`: 62.5 and 84.0 % (37.5 and 16.0 % error; verified: table 2).
Cost: 89 M images; 2.9 device-hours. (Paper: 12 days on one GTX 580.)

`:modern` is `common.modern_plain`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=70, batch_size=128)
    c.model = dict(name='zfnet')
    c.minival = 10_000
    c.transform.train.crop = dict(name='resize_random_crop', size=224, low=256, high=256, square=True)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=5e-4, decay_all=True)
    c.schedule = dict(
        name='plateau', peak=0.01, rate=0.1, end=1e-5, split='minival', batch_scaling='linear', reference_batch=128
    )
    models = {'zfnet_512_1024_512': 224}
    return common.finish(c, arg, models, smoke_size=224, modern=common.modern_plain)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
