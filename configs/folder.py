"""Any net on any folder of images: name the folder, and where you like the net, the image size and the epochs.

    python -m cvresearch.main --config configs/folder.py --config.data.root=PHOTOS --workdir runs/photos
    python -m cvresearch.evaluate --workdir runs/photos

PHOTOS has a folder for each class, or train/ and test/ with those inside, or a list (--config.data.list=labels.csv);
docs/data.md has the rules. :folds holds out each fifth of the training images once, :folds10 each tenth, in a sweep:

    python -m launch.sweep --config configs/folder.py:folds --config.data.root=PHOTOS --workdir runs/folds
    python -m launch.report --workdir runs/folds

Another net: --config.model.name=mobilenetv2_100; smaller images: --config.image_size=64.

The recipe is this project's, for folders of some hundred images and more: ResNet-18 on 96 pixels, AdamW, half a
cosine, Inception crops and flips.
Expected: no number, since that depends on the photographs.
Cost: 30 times the training images.
"""

from configs import common

FOLDS = {'folds': 5, 'folds10': 10}


def get_config(arg=''):
    c = common.imagenet(epochs=30, batch_size=32, image_size=96)
    c.model = dict(name='resnet18')
    c.data = dict(name='image_folder', root='')
    c.transform.train.crop.scale = (0.35, 1.0)  # few images: more of each than ImageNet's 0.08
    c.optimizer = dict(name='adamw', weight_decay=0.05)
    c.schedule = dict(name='cosine', peak=1e-3, warmup_epochs=2.0)
    c.log_every_steps = 10
    c.evaluate_every_epochs = c.save_every_epochs = 5.0
    return common.finish(c, arg, folds=lambda c: c.data.update(folds=5), folds10=lambda c: c.data.update(folds=10))


def sweep(arg=''):
    folds = next((FOLDS[word] for word in arg.split(',') if word in FOLDS), 0)
    if folds:
        # Both keys: another number of folds is then said to be the sweep's, and no fold is left out in silence.
        yield from ({'data.folds': folds, 'data.fold': fold} for fold in range(folds))
    else:
        yield from ({'seed': seed} for seed in range(3))
