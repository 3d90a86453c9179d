"""Where images come from: a source by its name, its splits ready to be shown to a net."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from cvresearch.base import plugins
from cvresearch.base.errors import UserError, check_arguments, construct, lookup
from cvresearch.base.paths import is_bucket, local
from cvresearch.data import folds, given_labels, identity, mirror, policies, remote, transforms, unlabelled
from cvresearch.data.bundled import digits, fake, fake_photographs, mnist5k, mnist500, two_moons
from cvresearch.data.decoded import Damage, Pictures
from cvresearch.data.examples import Arrays, Encoded, Examples, Facts, Source, Subset, Unlabelled
from cvresearch.data.folders import image_folder
from cvresearch.data.idx import fashion_mnist, mnist
from cvresearch.data.imagenet import TRAIN, VALIDATION, imagenet, imagenet_a, imagenet_r, imagenet_real, imagenet_v2
from cvresearch.data.imagenet import facts as described
from cvresearch.data.imagenet import wnids as imagenet_wnids
from cvresearch.data.preparation import AsTransform, Preparation, PreparedArrays
from cvresearch.data.preprocessing import imagenet_classes
from cvresearch.data.small import cifar10, cifar100, svhn
from cvresearch.data.tfds import tfds
from cvresearch.data.transforms import Transform

SOURCES = {
    'mnist5k': mnist5k,
    'mnist500': mnist500,
    'digits': digits,
    'fake': fake,
    'fake_photographs': fake_photographs,
    'two_moons': two_moons,
    'mnist': mnist,
    'fashion_mnist': fashion_mnist,
    'cifar10': cifar10,
    'cifar100': cifar100,
    'svhn': svhn,
    'imagenet': imagenet,
    'imagenet_v2': imagenet_v2,
    'imagenet_real': imagenet_real,
    'imagenet_a': imagenet_a,
    'imagenet_r': imagenet_r,
    'image_folder': image_folder,
    'tfds': tfds,
}
# Those that read a `root` in a bucket where it is; of others it is copied first.
IN_PLACE = ('imagenet', 'imagenet_v2', 'imagenet_real', 'imagenet_a', 'imagenet_r', 'image_folder')
FOLDERS = ('root', 'data_dir')  # arguments that are folders of data
MOST_NAMES = 20  # of classes, in a line
HOST: dict[str, Any] = dict(
    most_damaged=0.001, threads=0, processes=1
)  # of all sources of encoded images, beside their own
EVERY: dict[str, Any] = dict(folds=0, fold=0, labels=0, labels_seed=0, cache='')  # of every source
# Of the images without labels, wherever they come from: how many for each with a label, their strong view, and labels
# that a net has given them.
UNLABELLED: dict[str, Any] = dict(ratio=1, policy=None, cutout=0, noise=0.0, labels='', **given_labels.SELECTION)


def table() -> dict[str, Callable[..., Source]]:
    """Returns the constructors of all sources by name, with the sources of plugins."""
    return plugins.merged(SOURCES, 'SOURCES')


def load(
    spec,
    minival: int = 0,
    transform=None,
    class_names: Sequence[str] | None = None,
    preparation: Preparation | None = None,
    without_labels=None,
) -> Source:
    """Returns the source that a config's `data` names.

    Args:
      spec: `name` and the arguments of that source's constructor. Sources of encoded images also take
        `most_damaged`, the share of training images above which damage stops a run (0.001), `threads`, that
        decode (0: one for each core), and `processes`, among which they and Python's work for training are shared
        (1: this one does it). All take `folds` and `fold`: into how many parts the training images are
        divided (0: none), and which of them is 'minival' (folds.py); `labels` and `labels_seed`: how many of the
        training images keep their labels (0: all), and which draw of them (unlabelled.py); and `cache`, the folder of
        this machine to which a folder in a bucket is copied first (mirror.py); if '', it is read in place (remote.py).
      minival: how many training images to hold out, evenly over the split, as the split
        'minival' on which the best checkpoint is chosen.
      transform: a config's `transform`: the knobs `train` and `eval`, for sources of encoded images.
      class_names: of a net, in the order of its outputs; labels are then the net's numbers, by the names of the
        classes (or, where all names are such, by ImageNet's WordNet ids or the net's numbers themselves). If None,
        the source has its own order.
      preparation: how a net prepares its images, in place of a transform; images of any source are then the net's.
      without_labels: a config's `unlabelled`; None for no such images.

    Raises:
      UserError: an unknown name or argument; a `minival` larger than the training split; a source of encoded
        images without a transform, or one of arrays with one; a class that the net does not know.
    """
    host = {key: spec.get(key, value) for key, value in HOST.items()}
    every = EVERY | {key: value for key, value in spec.items() if key in EVERY}
    check_arguments('data', every, EVERY)
    cache, divided = every.pop('cache'), every
    arguments = {key: value for key, value in spec.items() if key not in (*HOST, *EVERY)}
    for key in [key for key in FOLDERS if is_bucket(str(arguments.get(key, '')))]:
        if cache or not reads_in_place(spec):
            arguments[key] = str(mirror.mirrored(arguments[key], cache, f'config.data.{key}'))
        else:
            host['threads'] = host['threads'] or remote.THREADS
    source = construct('data', table(), arguments)
    if class_names is not None:
        same = identity.same_names(source.facts.class_names, class_names)
        source = identity.mapped(source, class_names, *([] if same else namings(tuple(class_names))))
    if divided['folds']:
        source = folds.held_out(source, divided['folds'], divided['fold'])
    elif divided['fold']:
        raise UserError(f'config.data.fold is {divided["fold"]}, and config.data.folds is 0; expected both, or neither')
    if minival:
        source = dataclasses.replace(source, splits=_held_out(source.splits, minival))
    rest = None
    if divided['labels']:
        if 'train' not in source.splits:
            raise UserError(f'config.data.labels is {divided["labels"]}, and the data has no training images')
        source, rest = unlabelled.keep_labels(source, divided['labels'], divided['labels_seed'])
    if without_labels is not None and without_labels['name'] != 'none':
        others = _unlabelled(without_labels, source, rest)
        if path := without_labels.get('labels', ''):
            selection = {key: value for key, value in without_labels.items() if key in given_labels.SELECTION}
            place = local(path, 'config.unlabelled.labels')
            others = given_labels.give(others, place, source.facts.class_names, **selection)
        source = dataclasses.replace(source, unlabelled=others)
    if preparation:
        return _prepared(source, preparation, **host)
    if source.encoded:
        return _decoded(source, transform or {}, **host)
    if transform:
        raise UserError(
            f'config.transform is for sources of encoded images, and {source.facts.name!r} is one of arrays; '
            'expected no knobs there (config.augment has those that work on the device)'
        )
    if host_keys := [key for key in HOST if key in spec]:
        raise UserError(f'data {spec["name"]!r} takes no argument {host_keys[0]!r}; it has no images to decode')
    return source


def reads_in_place(spec) -> bool:
    """Whether the source that a config's `data` names can read its images in a bucket, without a copy."""
    return spec['name'] in IN_PLACE and not spec.get('list')


def told(source: Source) -> list[str]:
    """Returns lines for a person: classes, images of each split, what was left out of the data."""
    names, splits = source.facts.class_names, ', '.join(f'{name} {len(part):,}' for name, part in source.splits.items())
    shown = f' ({", ".join(names)})' if len(names) <= MOST_NAMES else ''
    if source.unlabelled is not None:
        splits = f'{splits}, without labels {len(source.unlabelled):,}'
    return [f'{source.facts.name}: {len(names):,} classes{shown}; images: {splits}', *source.notes]


def without_images(spec, minival: int = 0, transform: Any = None) -> Source:
    """Returns a source whose splits have lengths and no images, for plans: ImageNet need not be there.

    Arguments and errors are as in `load`, which makes any other source.
    """
    if spec['name'] != 'imagenet':
        return load(spec, minival, transform)
    facts = described('imagenet', counts=dict(train=TRAIN, test=VALIDATION))
    minival = minival or (TRAIN // spec['folds'] if spec.get('folds') else 0)
    size = transforms.make(transform['train'], 'transform.train').size
    facts = dataclasses.replace(facts, image_shape=(size, size, 3))
    splits = {'train': range(TRAIN - minival), 'test': range(VALIDATION)}
    return Source(facts, splits | ({'minival': range(minival)} if minival else {}), True)


def part_of(source: Source, split: str, limit: int = 0, every: int = 1) -> Source:
    """Returns the source with a part of one split, spread evenly over it: splits are in the order of the classes.

    `subset` says which part; it stays empty where that is the whole split.

    Args:
      source: ready to be shown to a net.
      split: the one that a part is taken of.
      limit: at most so many images; 0 for no limit.
      every: one in so many.

    Raises:
      UserError: both are given; there is no such split.
    """
    if limit and every > 1:
        raise UserError(f'--limit={limit} and --every={every} both choose images; expected one of them')
    examples = lookup('split', source.splits, split)
    size = len(examples)
    index = np.arange(limit) * size // limit if 0 < limit < size else np.arange(0, size, every)
    if len(index) == size:
        return source
    part = examples.part(index) if isinstance(examples, Pictures) else Subset(examples, index)
    how = {'limit': limit} if limit else {'every': every}
    return dataclasses.replace(source, splits=source.splits | {split: part}, subset=how | {'of': size})


def unlabelled_table() -> dict[str, Callable]:
    """Returns what a config's `unlabelled` can name: nothing, what `data.labels` leaves, images, any other source."""
    return {'none': lambda: None, 'rest': lambda: None, 'images': unlabelled.images, **table()}


def _unlabelled(spec, source: Source, rest: Encoded | None) -> Encoded:
    """Returns the images that a config's `unlabelled` names, in the form of a source's before they are decoded."""
    arguments = {key: value for key, value in spec.items() if key not in UNLABELLED}
    check_arguments('config.unlabelled', {key: spec[key] for key in spec if key in UNLABELLED}, UNLABELLED)
    if type(spec.get('ratio', 1)) is not int or spec.get('ratio', 1) < 1:
        raise UserError(f'config.unlabelled.ratio is {spec["ratio"]!r}; expected a whole number, at least 1')
    other = construct('unlabelled', unlabelled_table(), arguments)
    if spec['name'] == 'rest':
        if rest is None or not len(rest):
            raise UserError(
                'config.unlabelled.name is rest, and every training image keeps its label; expected config.data.labels '
                'below their number, or another source of images'
            )
        return rest
    if spec['name'] == 'images':
        other = Source(dataclasses.replace(source.facts, name='images'), {'train': other}, True)
    unlabelled.check_fits(source, other)
    if 'train' not in other.splits:
        raise UserError(f'config.unlabelled.name is {spec["name"]}, which has no training images here')
    return other.splits['train'] if spec['name'] == 'images' else Unlabelled(other.splits['train'])


def strong_view(examples: Examples, spec) -> Examples:
    """Returns images as a net is to see them the hard way: what training does to them, and a policy, and cutout.

    Args:
      examples: a source's unlabelled images, as the training shows them.
      spec: a config's `unlabelled`; its `policy` takes the place of the training's own, `cutout` is the side of a grey
        square in pixels, `noise` the standard deviation of Gaussian noise in grey values of 0 to 255 (0 for none).

    Raises:
      UserError: noise below 0, or for encoded images.
    """
    policy = policies.make(spec['policy']) if spec.get('policy') else policies.Policy()
    cutout, noise = spec.get('cutout', 0), spec.get('noise', 0.0)
    if noise < 0 or (noise and isinstance(examples, Pictures)):
        raise UserError(f'config.unlabelled.noise is {noise}; expected 0 or more for arrays, 0 for encoded images')
    if isinstance(examples, Pictures):
        transform = cast(Transform, examples.transform)
        return examples.with_transform(dataclasses.replace(transform, policy=policy, cutout=cutout))
    return unlabelled.StrongView(examples, policy, cutout, noise)


def namings(class_names: tuple[str, ...]) -> list[Sequence[str]]:
    """Returns what a net's classes are called beside their names, in the order of its outputs."""
    numbers = list(map(str, range(len(class_names))))
    return [imagenet_wnids(), numbers] if class_names == imagenet_classes() else [numbers]


def _held_out(splits: dict[str, Examples], minival: int) -> dict[str, Examples]:
    if 'train' not in splits:
        raise UserError(f'config.minival is {minival}, and the data has no training images; expected 0')
    train = splits['train']
    if 'minival' in splits:
        raise UserError(
            f'config.minival is {minival}, and the data has validation images of its own, or of a fold '
            f'({len(splits["minival"]):,}); '
            'set config.minival=0 to choose the best checkpoint by them'
        )
    if not 0 < minival < len(train):
        raise UserError(f'config.minival is {minival}; expected 0 to {len(train) - 1}, the training split less one')
    held = np.arange(minival) * len(train) // minival
    kept = np.setdiff1d(np.arange(len(train)), held)
    return {'train': Subset(train, kept), 'minival': Subset(train, held), 'test': splits['test']}


def _decoded(source: Source, transform, most_damaged: float, threads: int, processes: int) -> Source:
    """Returns the source with images of one size: of the training crop, or of the evaluation's."""
    if processes < 1:
        raise UserError(f'config.data.processes is {processes}; expected at least 1, this process alone')
    for part in ('train', 'eval'):
        if part not in transform:
            raise UserError(f'config.transform has no {part!r}; data {source.facts.name!r} needs the knobs of both')
    transform_of = {part: transforms.make(transform[part], f'transform.{part}') for part in ('train', 'eval')}
    without = source.unlabelled
    damage = Damage(most_damaged, len(source.splits.get('train', ())) + len(without or ()))
    splits = {}
    for name, encoded in source.splits.items():
        training = name == 'train'
        splits[name] = Pictures(
            encoded,
            transform_of['train' if training else 'eval'],
            damage if training else None,
            threads,
            processes if training else 1,
        )
    if without is not None:
        without = Pictures(without, transform_of['train'], damage, threads, processes)
    size = transform_of['train'].size
    facts = dataclasses.replace(source.facts, image_shape=(size, size, 3))
    return dataclasses.replace(source, facts=facts, splits=splits, unlabelled=without)


def _prepared(source: Source, preparation: Preparation, most_damaged: float, threads: int, processes: int) -> Source:
    """Returns the source with the pixels that a net sees."""
    facts = dataclasses.replace(source.facts, image_shape=preparation.input_shape)
    if source.encoded:
        shown = {name: Pictures(part, AsTransform(preparation), None, threads) for name, part in source.splits.items()}
    else:
        shown = {name: PreparedArrays(part, preparation) for name, part in source.splits.items()}
    others = source.unlabelled
    if others is not None:
        transformed = AsTransform(preparation)
        others = Pictures(others, transformed, None, threads) if source.encoded else PreparedArrays(others, preparation)
    return dataclasses.replace(source, facts=facts, splits=shown, unlabelled=others)


__all__ = ['SOURCES', 'Arrays', 'Encoded', 'Examples', 'Facts', 'Source', 'Subset', 'load']
