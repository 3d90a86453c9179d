"""What experiments truly share. Readable and printable without JAX."""

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError, nearest


def classification(data: str, epochs: float, batch_size: int) -> ConfigDict:
    """Returns the knobs of every experiment, at their plainest."""
    return ConfigDict(dict(
        seed=0,
        epochs=float(epochs),
        batch_size=batch_size,
        eval_batch_size=batch_size,
        dtype='float32',                # of the computation; parameters are float32
        data=dict(name=data),           # and the arguments of that source
        transform=dict(),               # of encoded images, on the host; arrays have none
        minival=0,                      # training images held out, on which the best checkpoint is chosen
        normalize=dict(name='dataset', mean=None, std=None),  # of pixels in [0, 1]; None: as `name` says
        augment=dict(shift=0, flip=False, mixup=0.0, cutmix=0.0, mix_per_example=False),
        loss=dict(name='softmax_cross_entropy', label_smoothing=0.0),
        model=dict(),
        optimizer=dict(),
        schedule=dict(),
        average=dict(name='none'),      # of the weights: ema, swa or polyak, evaluated beside the weights themselves
        batch_norm=dict(name='batch_norm', group_size=0, precise_batches=0),  # 0 examples: of the whole batch
        distillation=dict(teacher='', weight=0.5, temperature=1.0),  # workdir of a finished run; '': none
        accumulate=1,                   # parts in which a batch goes through the net, where it does not fit at once
        remat=False,                    # compute blocks anew in the backward pass, instead of keeping their values
        mesh=dict(data=-1),             # devices; -1: all
        log_every_steps=50,
        evaluate_every_epochs=1.0,
        save_every_epochs=1.0,
        keep=2,                         # latest checkpoints kept
        snapshot_every_epochs=0.0,      # for ensembles, beside those at the ends of sgdr's cycles
        keep_predictions=True,          # logits of the last evaluation, compressed
    ), convert_dict=True)  # fmt: skip


def mnist5k(epochs: float = 30, batch_size: int = 64) -> ConfigDict:
    """Returns the setting of all experiments on the 5,000 MNIST digits: AdamW, cosine, shifts."""
    c = classification('mnist5k', epochs, batch_size)
    c.eval_batch_size = 500
    c.augment.shift = 2
    c.optimizer = dict(name='adamw', weight_decay=0.01)
    c.schedule = dict(name='cosine', peak=2e-3, warmup_epochs=1.0)
    c.evaluate_every_epochs = 5.0
    c.save_every_epochs = 5.0
    return c


def imagenet(
    epochs: float, batch_size: int, image_size: int = 224, eval_size: int | None = None, eval_resize: int | None = None
) -> ConfigDict:
    """Returns the setting of experiments on ImageNet-1k: Inception crops and flips; evaluated on the centre.

    Args:
      epochs: passes over the 1,281,167 training images.
      batch_size: images a step, over all devices.
      image_size: side of the training crop, in pixels.
      eval_size: side of the evaluation crop; `image_size` where not given.
      eval_resize: length of the short side before that crop; 8/7 of it where not given (256 for 224).
    """
    eval_size = eval_size or image_size
    c = classification('imagenet', epochs, batch_size)
    c.data = dict(name='imagenet', root='')  # '': $CVRESEARCH_DATA/imagenet, data/imagenet, ~/data/imagenet
    # Every knob is explained at Transform in cvresearch/data/transforms.py; crops and policies are in the files beside.
    colour = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, lighting=0.0)
    shape = dict(rotate=0.0, translate=0.0, shear=0.0, stretch=0.0)
    erased = dict(erasing=0.0, erasing_area=(0.02, 1 / 3), erasing_ratio=(0.3, 3.3), cutout=0, fill='mean')
    c.transform = dict(
        train=dict(
            crop=dict(name='random_resized_crop', size=image_size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
            fast=True, interpolation='bilinear', antialias=False, flip=0.5, policy=dict(name='none'),
            **colour, **shape, **erased, channels='RGB',
        ),
        eval=dict(
            crop=dict(name='resize_center_crop', size=eval_size, resize=eval_resize or round(eval_size * 256 / 224)),
            fast=False, interpolation='bilinear', antialias=True, channels='RGB',
        ),
    )  # fmt: skip
    c.log_every_steps = 100
    return c


def finish(c: ConfigDict, arg: str, **variants) -> ConfigDict:
    """Applies the argument after the file's name and locks the keys.

    Args:
      c: the experiment.
      arg: '', 'smoke' (a run of well under a minute), or one of `variants`.
      **variants: functions that change the configuration in place.

    Raises:
      UserError: an unknown argument.
    """
    variants = {'smoke': smoke, **variants}
    if arg and arg not in variants:
        raise UserError(f'unknown config argument {arg!r}; {nearest(arg, variants)}')
    if arg:
        variants[arg](c)
    return c.lock()


def smoke(c: ConfigDict) -> None:
    """Shortens a run to a fraction of an epoch, with two evaluations and two saves on the way.

    Whatever is told in epochs (all such keys end in `epochs`) is shortened with it. Photographs on disk are
    replaced by synthetic ones, made on the spot, that go through the same transforms.
    """
    if c.transform:
        c.data = dict(name='fake_photographs', classes=1000, train=64, test=32)
        c.batch_size = c.eval_batch_size = 16
    shorter, c.epochs = 0.5 / c.epochs, 0.5
    c.log_every_steps = 5
    c.evaluate_every_epochs = 0.25
    c.save_every_epochs = 0.25
    for group in (c.schedule, c.average):
        for key, value in group.items():
            if key == 'warmup_epochs':
                group[key] = min(value, 0.1)
            elif key == 'epochs':
                group[key] = tuple(epoch * shorter for epoch in value)
            elif key.endswith('epochs'):
                group[key] = value * shorter
    if 'warmup_steps' in c.schedule:
        c.schedule.warmup_steps = min(c.schedule.warmup_steps, 1)
