"""WRN-50-2-bottleneck on ImageNet-1k. Zagoruyko & Komodakis 2016, arXiv:1605.07146, section 3 (ImageNet).

    python -m cvresearch.main --config configs/wide_resnet50_2.py --workdir runs/wide_resnet50_2

Trained with the code of fb.resnet.torch: SGD with Nesterov's momentum, batch 256, weight decay 1e-4 of all
parameters, 0.1 divided by ten every 30 of 90 epochs, random resized crops, colours, lighting (all of it recalled).
Expected: 78.1 % top-1, 94.0 % top-5, one crop (21.9 and 6.03 % error; verified: the authors' repository).
Cost: 115 M images; 37 device-hours.

`:modern` is `common.modern_residual`: 81.6 and 95.8 % (verified: torchvision's IMAGENET1K_V2);
`:wide_resnet101_2,modern` is its larger sister, which is not in the paper.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=90, batch_size=256)
    c.model = dict(name='wide_resnet50_2')
    c.transform.train.update(brightness=0.4, contrast=0.4, saturation=0.4)
    c.transform.train.lighting = 0.1
    c.batch_norm.group_size = 32
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(name='step', peak=0.1, every_epochs=30.0, batch_scaling='linear', reference_batch=256)
    return common.finish(
        c, arg, {'wide_resnet101_2': 224}, modern=common.modern_residual, smoke_model=dict(stage_sizes=(1, 1, 1, 1))
    )


def sweep():
    for seed in range(3):
        yield {'seed': seed}
