"""What experiments truly share. Readable and printable without JAX."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError, nearest

UPDATES = dict(accumulate=1, frozen='inference')  # of plain training; frozen: the mode of what `freeze` holds


def classification(data: str, epochs: float, batch_size: int) -> ConfigDict:
    """Returns the knobs of every experiment, at their plainest."""
    return ConfigDict(
        dict(
            seed=0,
            epochs=float(epochs),
            max_steps=0,  # the run ends there, on the schedule of all its epochs; 0: after the epochs
            batch_size=batch_size,
            eval_batch_size=batch_size,
            dtype='float32',  # of the computation; parameters are float32
            plugins=(),  # modules or .py files with nets and datasets of your own
            data=dict(name=data),  # and the arguments of that source
            unlabelled=dict(name='none'),  # images without labels: what data.labels leaves (rest), images, any source
            method=dict(name='supervised'),  # of learning; others learn from images without labels: docs/unlabelled.md
            transform=dict(),  # of encoded images, on the host; arrays have none
            sampling=dict(name='shuffle'),  # every image once an epoch; or classes by shares: balanced, power
            init=dict(  # what the run starts from: a net by its name (run:DIR, file:PATH#NET, hub:NAME)
                weights='',  # from scratch
                head='new',  # or keep: the head too, for the same classes
                skip=(),  # patterns of what is new all the same
                input='adapt',  # or strict: refuse other input channels
            ),
            finetune=dict(name='all'),  # which parameters learn, and when: probe, last, discriminative, gradual, lpft
            minival=0,  # training images held out, on which the best checkpoint is chosen
            early_stopping=dict(name='none'),  # or patience: ends the run when minival gains nothing more
            normalize=dict(name='dataset', mean=None, std=None),  # of pixels in [0, 1]; None: as `name` says
            # On the device.
            augment=dict(shift=0, border='black', flip=False, cutout=0, erasing=0.0, resize=0),
            mixing=dict(mixup=0.0, cutmix=0.0, per_example=False),  # of images and targets, on the device
            resize=dict(name='none'),  # progressive resizing: sizes and strengths as functions of the step
            loss=dict(name='softmax_cross_entropy', label_smoothing=0.0),
            model=dict(),
            optimizer=dict(),
            updates=dict(UPDATES),  # what stands around the optimizer's rule: clipping, SAM, what is frozen, rates
            schedule=dict(),
            average=dict(name='none'),  # of the weights: ema, swa or polyak, evaluated beside the weights themselves
            batch_norm=dict(name='batch_norm', group_size=0),  # 0 examples: of the whole batch
            distillation=dict(teacher='', weight=0.5, temperature=1.0),  # workdir of a finished run; '': none
            compress=dict(name='none'),  # while it trains: prune, share (of weights) or int8: docs/compression.md
            precise_batches=0,  # training batches over which statistics of norms are found anew at the end
            remat=False,  # compute blocks anew in the backward pass, instead of keeping their values
            mesh=dict(  # devices: `data` (-1: all) times `shard`
                data=-1,  # copies of the parameters
                shard=1,  # devices over which each copy is divided
                least=16384,  # what of it, with the rules: base/mesh.py, docs/scale.md
                rules=(),
            ),
            # Gradients that are not finite: stop, or skip the batch; in_a_row such batches stop the run.
            non_finite=dict(name='stop'),
            watch=dict(name='none'),  # or layers: activations, gradients and updates, every_steps
            log_every_steps=50,
            evaluate_every_epochs=1.0,
            save_every_epochs=1.0,  # 0: at the end alone
            keep=2,  # latest checkpoints kept
            save_failures=3,  # in a row, of a full disk, that stop the run; those before are warnings
            snapshot_every_epochs=0.0,  # for ensembles, beside those at the ends of sgdr's cycles
            keep_predictions=True,  # logits of the last evaluation, compressed
        ),
        convert_dict=True,
    )


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


def fashion_mnist(epochs: float, batch_size: int) -> ConfigDict:
    """Returns the setting of experiments on Fashion-MNIST, with the whole of its training images."""
    c = classification('fashion_mnist', epochs, batch_size)
    c.eval_batch_size = 500
    c.log_every_steps = 100
    return c


def fashion_study(epochs: float, batch_size: int, train: int) -> ConfigDict:
    """Returns the setting of studies that compare with no published number: part of Fashion-MNIST's training images.

    Args:
      epochs: passes over these images.
      batch_size: images a step.
      train: training images, the first of each class. All 10,000 test images are evaluated, at the end.
    """
    c = fashion_mnist(epochs, batch_size)
    c.data.train = train
    c.optimizer = dict(name='adamw', weight_decay=0.01)
    c.schedule = dict(name='cosine', peak=2e-3, warmup_epochs=1.0)
    c.evaluate_every_epochs = c.save_every_epochs = float(epochs)
    return c


def imagenet(
    epochs: float, batch_size: int, image_size: int = 224, eval_size: int | None = None, eval_resize: int | None = None
) -> ConfigDict:
    """Returns the setting of experiments on ImageNet-1k: Inception crops and flips; evaluated on the centre.

    Args:
      epochs: passes over the 1,281,167 training images.
      batch_size: images a step, over all devices.
      image_size: side of the training crop, in pixels.
      eval_size: side of the evaluation crop; `image_size` by default.
      eval_resize: length of the short side before that crop; 8/7 of it by default (256 for 224).
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
            fast=True,
            interpolation='bilinear',
            antialias=False,
            flip=0.5,
            policy=dict(name='none'),
            **colour,
            **shape,
            **erased,
            channels='RGB',
        ),
        eval=dict(
            crop=dict(name='resize_center_crop', size=eval_size, resize=eval_resize or round(eval_size * 256 / 224)),
            fast=False,
            interpolation='bilinear',
            antialias=True,
            channels='RGB',
        ),
    )
    c.log_every_steps = 100
    return c


def cifar(epochs: float, batch_size: int) -> ConfigDict:
    """Returns the setting of experiments on CIFAR-10: crops out of four black pixels more, and flips."""
    c = classification('cifar10', epochs, batch_size)
    c.augment.update(shift=4, flip=True)
    c.log_every_steps = 100
    return c


def cifar100(c: ConfigDict) -> None:
    """The same experiment on CIFAR-100."""
    c.data.name = 'cifar100'


def modern_residual(c: ConfigDict) -> None:
    """The recipe of torchvision's second weights, 2021, the best for nets of full convolutions with batch norm.

    Verified: the command in pytorch/vision, references/classification; recalled: the average's 0.99998. 600 epochs,
    batch 1,024, SGD with 0.5 after 5 epochs of warm-up, half a cosine, weight decay 2e-5 but not of norms,
    TrivialAugment, erasing 0.1, mixup 0.2 or CutMix 1.0, label smoothing 0.1, weights averaged; training at 176
    pixels for 224. There each image comes four times in an epoch with other augmentation, and the average is taken
    every 32 steps.
    """
    size = round(c.transform.eval.crop.size * 176 / 224)
    c.epochs, c.batch_size, c.minival = 600.0, 1024, 0
    c.transform.train.crop = dict(name='random_resized_crop', size=size)
    c.transform.train.policy = dict(name='trivial_augment')
    c.transform.train.update(brightness=0.0, contrast=0.0, saturation=0.0, lighting=0.0, erasing=0.1)
    c.mixing.update(mixup=0.2, cutmix=1.0)
    c.batch_norm.group_size = 128
    c.loss = dict(name='softmax_cross_entropy', label_smoothing=0.1)
    c.optimizer, c.updates = dict(name='sgd', momentum=0.9, weight_decay=2e-5), dict(UPDATES)
    c.schedule = dict(name='cosine', peak=0.5, warmup_epochs=5.0, batch_scaling='linear', reference_batch=1024)
    c.average = dict(name='ema', decay=0.9993)  # 0.99998 ** 32, at each step


def modern_mobile(c: ConfigDict) -> None:
    """The recipe of timm's EfficientNets, 2020, for nets of separable convolutions: RandAugment, erasing, averaging.

    Verified: the command in timm's documentation of EfficientNet-B0; recalled: warm-up, smoothing, noise. 450 epochs,
    batch 768, RMSProp with 0.048 (after 3 epochs of warm-up) times 0.97 every 2.4 epochs, epsilon 1e-3, weight decay
    1e-5, `rand-m9-mstd0.5`, erasing 0.2 with noise, label smoothing 0.1, an average with 0.9999. There crops are
    resized bilinearly or bicubically, drawn for each image; here bilinearly.
    """
    c.epochs, c.batch_size, c.minival = 450.0, 768, 0
    c.transform.train.crop = dict(name='random_resized_crop', size=c.transform.train.crop.size)
    c.transform.train.policy = dict(name='timm_rand_augment', layers=2, magnitude=9.0, magnitude_std=0.5)
    c.transform.train.update(brightness=0.0, contrast=0.0, saturation=0.0, lighting=0.0, erasing=0.2, fill='noise')
    c.batch_norm.group_size = 384
    c.loss = dict(name='softmax_cross_entropy', label_smoothing=0.1)
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1e-3, weight_decay=1e-5)
    c.updates = dict(UPDATES)  # without the clipping of the recipe before
    c.schedule = dict(
        name='exponential',
        peak=0.048,
        every_epochs=2.4,
        rate=0.97,
        warmup_epochs=3.0,
        batch_scaling='linear',
        reference_batch=768,
    )
    c.average = dict(name='ema', decay=0.9999)


def modern_plain(c: ConfigDict) -> None:
    """What of `modern_residual` suits nets without batch norm, at a fiftieth of its rate. This project's choice."""
    modern_residual(c)
    c.transform.train.crop.size = c.transform.eval.crop.size
    c.epochs = 300.0
    c.batch_norm.group_size = 0
    c.optimizer.weight_decay, c.updates.clip_norm = 1e-4, 1.0
    c.schedule.peak = 0.01


def modern_cifar(c: ConfigDict) -> None:
    """Sharpness-aware minimisation on CIFAR: Foret et al. 2020, arXiv:2010.01412, section 3.1 (recalled).

    SGD with Nesterov's momentum, 0.1, half a cosine over 200 epochs, weight decay 5e-4, radius 0.05.
    """
    c.epochs, c.batch_size = 200.0, 128
    c.augment.update(shift=4, flip=True)
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=5e-4)
    c.updates.sam = 0.05
    c.schedule = dict(name='cosine', peak=0.1, batch_scaling='linear', reference_batch=128)


def changed(values: Mapping) -> Callable[[ConfigDict], None]:
    """Returns a variant for `finish` that sets these values; a model or optimizer with a name replaces the former."""

    def change(c: ConfigDict) -> None:
        if 'name' in values.get('model', {}):
            c.model = dict()
        if 'name' in values.get('optimizer', {}):
            c.optimizer = dict()
        c.update(values)

    return change


def finish(
    c: ConfigDict,
    arg: str,
    models: Mapping[str, int] | None = None,
    smoke_size: int = 64,
    smoke_model: Mapping | None = None,
    **variants: Callable,
) -> ConfigDict:
    """Applies the arguments after the file's name, and locks the keys.

    Args:
      c: the experiment.
      arg: any of these, with commas between: names of `models`, names of `variants`, 'smoke' (a run of well under a
        minute). They are applied in the order in which they are written, 'smoke' after the others.
      models: other nets that the recipe is for, and the side of their images in pixels.
      smoke_size: side of the photographs that a smoke run trains on.
      smoke_model: arguments of the net under which a smoke run takes seconds: fewer blocks, which compile sooner.
      **variants: functions that change the configuration in place.

    Raises:
      UserError: an unknown argument.
    """
    models, names = models or {}, arg.split(',') if arg else []
    valid = {**models, 'smoke': None, **variants}
    for name in names:
        if name not in valid:
            raise UserError(f'unknown config argument {name!r}; {nearest(name, valid, every=True)}')
    for name in names:
        if name in models:
            c.model.name = name
            set_image_size(c, models[name])
        elif name != 'smoke':
            variants[name](c)
    if 'smoke' in names:
        smoke(c, smoke_size)
        c.model.update(smoke_model or {})
    return c.lock()


def set_image_size(c: ConfigDict, size: int) -> None:
    """Sets the side of the crops of photographs, in pixels; what is left out around the evaluation's grows with it."""
    if not c.transform or size == c.transform.train.crop.size:
        return
    train, evaluation = c.transform.train.crop, c.transform.eval.crop
    for key in ('low', 'high'):
        if key in train:
            train[key] = round(train[key] * size / train.size)
    if 'resize' in evaluation:
        evaluation.resize = round(evaluation.resize * size / evaluation.size)
    train.size = evaluation.size = size


def smoke(c: ConfigDict, size: int) -> None:
    """Shortens a run to a fraction of an epoch, with two evaluations and two saves on the way.

    Data that does not come with the packages is replaced by synthetic images. Photographs are made on the spot, at
    `size` pixels, and go through the same transforms. Whatever is told in epochs (all such keys end in `epochs`) is
    shortened with the run.
    """
    c.log_every_steps = 5
    if c.data.name in ('imagenet', 'image_folder', 'cifar10', 'cifar100', 'svhn', 'fashion_mnist'):
        batch = 2 if c.transform and size > 128 else 8
        few = c.unlabelled.name != 'none'
        parts = dict(classes=10, train=8 * batch, test=batch)
        parts |= dict(train=64 * batch, labels=8 * batch) if few else {}
        if c.transform:
            set_image_size(c, size)
            c.data = dict(name='fake_photographs', **parts)
        else:
            c.data = dict(name='fake', **array_shape(c.data), **parts)
        if few:
            c.unlabelled = dict(name='rest', ratio=1)
        c.batch_size = c.eval_batch_size = batch
        c.batch_norm.group_size = 0  # of the whole batch, which is smaller than the paper's
        c.minival = batch if c.minival else 0
        c.log_every_steps = 1
        if c.resize.name != 'none':
            c.resize.size = (size // 2, size)
    labels = c.data.get('labels', 0)
    before, c.epochs = c.epochs, 4 * c.batch_size / labels if labels else 0.5  # four updates, where labels are few
    c.evaluate_every_epochs = c.save_every_epochs = c.epochs / 2
    shorter = c.epochs / before
    for group in (c.schedule, c.average, c.resize):
        for key, value in group.items():
            if key == 'warmup_epochs':
                group[key] = min(value, 0.1)
            elif key == 'epochs':
                group[key] = tuple(epoch * shorter for epoch in value)
            elif key.endswith('epochs'):
                group[key] = value * shorter
    if 'warmup_steps' in c.schedule:
        c.schedule.warmup_steps = min(c.schedule.warmup_steps, 1)


def array_shape(data: ConfigDict) -> dict[str, int]:
    """Returns the side of the images of a set of arrays, and their channels."""
    if data.name == 'fashion_mnist':
        return dict(image_size=data.get('image_size', 28) + 2 * data.get('pad', 0), channels=1)
    return dict(image_size=32)
