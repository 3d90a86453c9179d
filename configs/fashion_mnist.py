"""Nets of all generations on Fashion-MNIST (60,000 train, 10,000 test), with one recipe, which is this project's.

Xiao et al. 2017, arXiv:1708.07747. The images: `apt-get install dataset-fashion-mnist`, or docs/data.md.

    python -m cvresearch.main --config configs/fashion_mnist.py --workdir runs/fashion_lenet5
    python -m cvresearch.main --config configs/fashion_mnist.py:resnet8 --workdir runs/fashion_resnet8

AdamW, half a cosine, batch 128; convolutional nets see flips and shifts of two pixels, the others the images as they
are. The weights are the last step's: nothing is chosen by test images.
`--config.minival=6000` holds training images out, to choose a value by; a run for the table trains on all.

Nets, each an argument after the file's name: `softmax_regression`, `mlp` (784-512-512-10), `mlp_256_128_64`,
`lenet5` and `lenet5_relu`, `two_conv_tensorflow`, `two_conv_hardmaru` and `two_conv_cmasch` (published with this data
set, models/two_conv.py), `cnn_flattening` (in 64x64 black pixels) and `cnn_gap` (Boracchi's lectures), `nin` (a third
as wide), `resnet8`, `densenet22` (growth 12, bottlenecks, compression), `wide_resnet10_2`, `mobilenet025`,
`shufflenet`, `squeezenet` and `efficientnet` (phi = -9), the last four at 64 pixels. `:plain` shows convolutional nets
the images as they are too, as many published results have it. Epochs are as many as two cores can do in about 20
minutes; `:short`, after the net, is a fifth of them, and at least one.

Expected: published results of such nets are 84 % (softmax regression) to 94 % (the small ResNets); measured here:
docs/evidence/fashion_mnist.md.
Cost: 1,200,000 images.
"""

from configs import common

NETS = {
    'softmax_regression': dict(epochs=30.0, model=dict(name='softmax_regression'), augment=dict(shift=0, flip=False)),
    'mlp': dict(epochs=30.0, model=dict(name='mlp', dropout=0.2), augment=dict(shift=0, flip=False)),
    'mlp_256_128_64': dict(
        epochs=30.0, model=dict(name='mlp', widths=(256, 128, 64)), augment=dict(shift=0, flip=False),
    ),
    'lenet5': dict(),
    'lenet5_relu': dict(model=dict(name='lenet5_relu')),
    'two_conv_tensorflow': dict(epochs=10.0, model=dict(name='two_conv_tensorflow')),
    'two_conv_hardmaru': dict(epochs=10.0, model=dict(name='two_conv_hardmaru')),
    'two_conv_cmasch': dict(epochs=15.0, model=dict(name='two_conv_cmasch')),
    'cnn_flattening': dict(epochs=8.0, data=dict(pad=18), model=dict(name='cnn_flattening')),
    'cnn_gap': dict(model=dict(name='cnn_gap')),
    'nin': dict(epochs=5.0, model=dict(
        name='nin_cifar10', kernel_init='he_fan_in',
        stages=(((5, 1, 'SAME'), (64, 53, 32)), ((5, 1, 'SAME'), (64, 64, 64)), ((3, 1, 'SAME'), (64, 64))),
    )),
    'resnet8': dict(epochs=10.0, model=dict(name='resnet20_cifar10', depth=8)),
    'densenet22': dict(epochs=5.0, model=dict(name='densenetbc100_k12_cifar10', layers=(3, 3, 3))),
    'wide_resnet10_2': dict(epochs=5.0, model=dict(name='wide_resnet28_10_cifar10', depth=10, widen=2)),
    'mobilenet025': dict(epochs=8.0, data=dict(image_size=64), augment=dict(shift=4), model=dict(
        name='mobilenetv1_025', bn_momentum=0.95, kernel_init='he_fan_in',
    )),
    'shufflenet': dict(epochs=8.0, data=dict(image_size=64), augment=dict(shift=4), model=dict(
        name='shufflenet_g3_x0_5', bn_momentum=0.95,
    )),
    'squeezenet': dict(epochs=8.0, data=dict(image_size=64), augment=dict(shift=4), model=dict(
        name='squeezenet1_1', bypass='simple', dropout=0.2, kernel_init='he_normal', head_init='he_normal',
    ), schedule=dict(peak=5e-4)),
    'efficientnet': dict(epochs=8.0, data=dict(image_size=64), augment=dict(shift=4), model=dict(
        name='efficientnet_b0', width=1.1**-9, depth=1.2**-9, stochastic_depth=0.0, dropout=0.1, bn_momentum=0.95,
    )),
}  # fmt: skip


def get_config(arg=''):
    c = common.fashion_mnist(epochs=20, batch_size=128)
    c.augment.update(shift=2, flip=True)
    c.model = dict(name='lenet5')
    c.optimizer = dict(name='adamw', weight_decay=0.01)
    c.schedule = dict(name='cosine', peak=2e-3, warmup_epochs=1.0)
    nets = {name: common.changed(values) for name, values in NETS.items()}
    return common.finish(c, arg, plain=plain, short=short, **nets)


def plain(c):
    c.augment.update(shift=0, flip=False)


def short(c):
    c.epochs = max(1.0, c.epochs / 5)
    c.schedule.warmup_epochs = min(c.schedule.warmup_epochs, c.epochs / 5)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
