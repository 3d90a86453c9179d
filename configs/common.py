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
        minival=0,                      # training images held out, on which the best checkpoint is chosen
        normalize=dict(mean=None, std=None),  # of pixels in [0, 1]; None: the dataset's own
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

    Whatever is told in epochs (all such keys end in `epochs`) is shortened with it.
    """
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
