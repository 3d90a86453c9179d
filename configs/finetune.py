"""A net that is trained already, on a folder of images of your own: name its weights and the folder.

    python -m cvresearch.main --config configs/finetune.py:probe --config.data.root=PHOTOS --workdir runs/photos \
        --config.init.weights=file:efficientnet-lite0.pth#lukemelas/efficientnet-lite0

The weights: run:DIR of a training of this project, file:PATH#LIBRARY/NET, hub:OWNER/NET. From them follow the net, the
size of its images (smaller: --config.image_size=96), their normalization; from the folder the head and its classes
(docs/data.md has the rules of folders, docs/transfer.md those of this). The argument is what learns:

- probe: the head alone, on features that stay as they are;
- last: the last two groups of layers too (--config.finetune.stages=3: three);
- all: everything, the head at ten times the rate. The default;
- discriminative: everything, each stage at the rate of the next one divided by 2.6;
- gradual: one stage more after each period, the last first, until half of the run;
- lpft: the head alone for half of the run, then everything;
- scratch: the same net from initial values, with which to compare.

The recipe is this project's, for folders of some hundred images: AdamW, half a cosine, Inception crops and flips.
Expected: docs/transfer.md; your number depends on the photographs.
Cost: 20 times the training images.
"""

from configs import common

# ImageNet's classes differ in the sizes of what is on them; a few own images need more of each.
SCALE = (0.35, 1.0)
HEAD = (('head', 10.0),)  # its rate by that of the rest, which is trained already


def get_config(arg=''):
    c = common.classification('image_folder', epochs=20, batch_size=32)
    c.data = dict(name='image_folder', root='')
    c.model = dict(name='')  # of the weights
    c.transform = dict(  # the sizes are those of the weights
        train=dict(crop=dict(name='random_resized_crop', scale=SCALE), antialias=True, flip=0.5),
        eval=dict(crop=dict(name='resize_center_crop'), fast=False, antialias=True),
    )
    c.optimizer = dict(name='adamw', weight_decay=0.05)
    c.updates.lr_scale = HEAD
    c.schedule = dict(name='cosine', peak=3e-4, warmup_epochs=1.0)
    c.precise_batches = 20  # running means of pretrained nets are slow, and small folders give few steps
    c.log_every_steps = 10
    c.evaluate_every_epochs = c.save_every_epochs = 5.0
    if 'smoke' in arg.split(','):
        c.model.name = 'resnet18'
        c.transform.train.crop.size = c.transform.eval.crop.size = 64
        c.transform.eval.crop.resize = 73
    return common.finish(c, arg, **METHODS)


def sweep(arg=''):
    yield from ({'seed': seed} for seed in range(3))


def probe(c):
    c.finetune = dict(name='probe')
    c.updates = dict(common.UPDATES)
    c.schedule.peak = 3e-3


def last(c):
    c.finetune = dict(name='last', stages=2)


def everything(c):
    c.finetune = dict(name='all')


def discriminative(c):
    c.finetune = dict(name='discriminative', factor=2.6, by='stage')
    c.updates = dict(common.UPDATES)
    c.schedule.peak = 3e-3


def gradual(c):
    c.finetune = dict(name='gradual', until=0.5)


def lpft(c):
    c.finetune = dict(name='lpft', until=0.5)


def scratch(c):
    c.init.skip = ('.*',)
    c.updates = dict(common.UPDATES)
    c.schedule.peak = 1e-3


METHODS = dict(
    probe=probe, last=last, all=everything, discriminative=discriminative, gradual=gradual, lpft=lpft, scratch=scratch
)
