"""Noisy Student: EfficientNets that teach larger or equal ones, ImageNet-1k. Xie et al. 2019, arXiv:1911.04252.

    python -m launch.chain --config configs/noisy_student_imagenet.py:efficientnet_b7 --workdir runs/noisy_student \\
        --config.unlabelled.root=PHOTOGRAPHS

Generation 0 learns from labels. Generations 1 to 3 learn from labels and from what the one before says of photographs
without any: of each class the 130,000 it is surest of, above a confidence of 0.3, with repetitions where there are
fewer; soft labels at temperature 1, the teacher without noise. The noise of the student: RandAugment of two operations,
dropout 0.5, stochastic depth 0.2 at the last block. Rate 0.016 for each 256 images, times 0.97 every 2.4 epochs of 350
(700 and 4.8 for B4 and smaller), weight decay 1e-5, label smoothing 0.1, an average of 0.9999; one image without a
label for each with one for B0, three for B1 to B7 (verified: google-research/noisystudent). The last generation trains
1.5 epochs on at a larger size without augmentation (section 3.1). Magnitudes of RandAugment: B2 6, B3 12, B4 15, B5 18,
B6 24, B7 27 (verified); B0 and B1 as B2, L2 as B7.

The paper's photographs are JFT's 300 million, which are not public: THE PAPER'S NUMBERS CANNOT BE REPRODUCED. Any
folder or tar of photographs takes their place. `python -m cvresearch.main --config ...` is generation 0 alone.
ALIGN, another row of the lectures' table, is pretrained on images with text and is no recipe here.

Expected, with JFT, top-1: L2 88.4 % (verified), B7 85.0 to 86.9 %, B0 77.3 to 78.8 % (recalled).
Cost: 897 M images; 96 device-hours a generation, the images without labels not counted.
"""

from configs import common

SIZES = {'b0': 224, 'b1': 240, 'b2': 260, 'b3': 300, 'b4': 380, 'b5': 456, 'b6': 528, 'b7': 600, 'l2': 475}
MAGNITUDES = {'b0': 6, 'b1': 6, 'b2': 6, 'b3': 12, 'b4': 15, 'b5': 18, 'b6': 24, 'b7': 27, 'l2': 27}
LARGER = 1.4  # size of the last epochs by that of training (section 3.1: 800 for L2's 475 and 600 for B7's own)


def get_config(arg=''):
    c = common.imagenet(epochs=700, batch_size=2048)
    c.model = dict(name='efficientnet_b0', dropout=0.5, stochastic_depth=0.2)
    c.transform.train.policy = dict(name='rand_augment', layers=2, magnitude=6.0)
    c.transform.eval.crop = dict(name='center_crop_resize', size=224, margin=32)
    c.batch_norm.group_size = 64
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5)
    c.schedule = dict(
        name='exponential',
        peak=0.128,
        every_epochs=4.8,
        rate=0.97,
        warmup_epochs=5.0,
        batch_scaling='linear',
        reference_batch=2048,
    )
    c.average = dict(name='ema', decay=0.9999)
    for name in _nets(arg):
        c.transform.train.policy.magnitude = float(MAGNITUDES[name])
        if name > 'b4':
            c.epochs, c.schedule.every_epochs = 350.0, 2.4
    models = {_full(name): size for name, size in SIZES.items()}
    return common.finish(c, arg, models, smoke_size=32, smoke_model=dict(depth=0.2))


def chain(arg=''):
    """A teacher, three students, and the last of these at a larger size."""
    name = (_nets(arg) or ['b0'])[-1]
    student = {
        'method.name': 'soft_labels',
        'unlabelled.name': 'images',
        'unlabelled.ratio': {'b0': 1, 'l2': 14}.get(name, 3),
        'unlabelled.threshold': 0.3,
        'unlabelled.per_class': 130_000,
    }
    larger = {
        'init.weights': '{previous}',
        'init.head': 'keep',
        'epochs': 1.5,
        'schedule.warmup_epochs': 0.0,
        'schedule.peak': 0.00128,
        'transform.train.policy.name': 'none',
        'image_size': round(LARGER * SIZES[name]),
    }
    return [{}, student, student, student, larger]


def _nets(arg):
    return [name for name in SIZES if _full(name) in arg.split(',')]


def _full(name):
    return f'efficientnet_{name}_475' if name == 'l2' else f'efficientnet_{name}'


def sweep():
    for seed in range(3):
        yield {'seed': seed}
