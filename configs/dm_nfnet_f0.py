"""NFNet-F0 to F6 on ImageNet-1k. Brock et al. 2021, arXiv:2102.06171, section 4 and appendix A.

    python -m cvresearch.main --config configs/dm_nfnet_f0.py --workdir runs/dm_nfnet_f0

Paper: SGD with Nesterov's momentum 0.9, batch 4,096, 0.1 x batch / 256 after 5 epochs of warm-up, half a cosine to 0,
360 epochs, weight decay 2e-5 but not of gains and biases, adaptive clipping 0.01 but not of the last layer, label
smoothing 0.1, mixup 0.2, CutMix 1.0, RandAugment of 4 operations, stochastic depth 0.25, dropout of 0.2 (F0) to 0.5,
an average with 0.99999. Its magnitude of 5 for F0 and that mixup and CutMix share the batch are recalled. Trained at
three quarters of the size it is evaluated at: 192 and 256 for F0. `:sam` adds sharpness-aware minimisation of radius
0.05, the paper's for F5 and F6.
Expected, top-1 and top-5, one crop (verified: table 3): F0 83.6 and 96.8 %, F1 84.7 and 97.1, F2 85.1 and 97.3, F3
85.7 and 97.5, F4 85.9 and 97.6, F5 86.0 and 97.6, `:dm_nfnet_f6,sam` 86.5 and 97.9.
`:dm_nfnet_f4_plus` is for pretraining on photographs that are not public (89.2 %); nothing is known for ImageNet alone.
Cost: 461 M images; 89 device-hours.

This is still the best recipe known for the net: there is no `:modern`.
"""

from configs import common

SIZES = {'f0': 256, 'f1': 320, 'f2': 352, 'f3': 416, 'f4': 512, 'f5': 544, 'f6': 576, 'f4_plus': 512}
TRAINED = {'f0': 192, 'f1': 224, 'f2': 256, 'f3': 320, 'f4': 384, 'f5': 416, 'f6': 448, 'f4_plus': 384}


def get_config(arg=''):
    c = common.imagenet(epochs=360, batch_size=4096, image_size=192)
    c.model = dict(name='dm_nfnet_f0')
    c.transform.eval.crop = dict(name='resize', size=256)
    c.transform.train.policy = dict(name='rand_augment', layers=4, magnitude=5)
    c.mixing.update(mixup=0.2, cutmix=1.0)
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=2e-5)
    c.updates.agc = 0.01
    c.schedule = dict(name='cosine', peak=0.1, warmup_epochs=5.0, batch_scaling='linear', reference_batch=256)
    c.average = dict(name='ema', decay=0.99999)
    nets = {f'dm_nfnet_{name}': net(name) for name in SIZES}
    return common.finish(c, arg, sam=sam, smoke_model=dict(depths=(1, 1, 1, 1)), **nets)


def net(name):
    def change(c):
        c.model.name = f'dm_nfnet_{name}'
        c.transform.train.crop.size, c.transform.eval.crop.size = TRAINED[name], SIZES[name]

    return change


def sam(c):
    c.updates.sam = 0.05


def sweep():
    for seed in range(3):
        yield {'seed': seed}
