"""SqueezeNet on ImageNet-1k. Iandola et al. 2016, arXiv:1602.07360; recipe of the authors' repository.

    python -m cvresearch.main --config configs/squeezenet1_0.py --workdir runs/squeezenet1_0

The repository's solver (recalled): SGD with momentum 0.9, batch 512 (32 x 16), 0.04 falling linearly to 0 over
170,000 steps (68 epochs), weight decay 2e-4, crops of 227 out of 256 and flips. (An earlier version of it has batch
1,024 and 0.08 falling as a square root over 85,000 steps; verified.)
Expected: 57.5 % top-1, 80.3 % top-5, one crop (verified: table 2). `:squeezenet1_0_simple_bypass` 60.4 and 82.5 %,
`:squeezenet1_0_complex_bypass` 58.8 and 82.0 % (verified: table 3). `:squeezenet1_1` 58.2 % (verified: torchvision).
Cost: 87.1 M images; 2 device-hours.

`:modern` is `common.modern_plain`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=68, batch_size=512)
    c.model = dict(name='squeezenet1_0')
    c.transform.train.crop = dict(name='resize_random_crop', size=224, low=256, high=256)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=2e-4)
    c.schedule = dict(name='polynomial', peak=0.04, power=1.0, batch_scaling='linear', reference_batch=512)
    names = ('squeezenet1_0_simple_bypass', 'squeezenet1_0_complex_bypass', 'squeezenet1_1')
    return common.finish(c, arg, dict.fromkeys(names, 224), modern=common.modern_plain)


def sweep():
    for name in ('squeezenet1_0', 'squeezenet1_0_simple_bypass', 'squeezenet1_0_complex_bypass'):
        yield {'model.name': name}
