"""A run's data: recorded at its start in run.json, and compared by whatever goes on with the run or uses it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cvresearch.base import hosts, plugins
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.data import identity, sources
from cvresearch.data.examples import Examples, Source
from cvresearch.data.folders import BY_HASH

NO_RECORD = 'no record of its data (a run of an earlier version)'


def recorded(path: Path) -> dict | None:
    """Returns what a run has recorded of its data (`identity.of`), None for runs of earlier versions."""
    card = read_card(path)
    return card.get('dataset') if card else None


def compared(path: Path, source: Source) -> dict:
    """Returns the record of a run's data, after comparing them with what the run recorded at its start.

    Nothing is written. All hosts must call it.

    Args:
      path: the workdir of the run.
      source: its data as they are now.

    Raises:
      UserError: the data have changed, or are not the same on every host.
    """
    present = identity.of(source)
    now = hosts.broadcast(present)
    if present != now:
        raise UserError(
            f'the data of host {jax.process_index()} differ from those of host 0: '
            f'{"; ".join(identity.differences(now, present)) or "the facts of the data"}; '
            'expected the same on all hosts'
        )
    card = hosts.broadcast(read_card(path) if hosts.is_primary() else None)
    if card is None:
        return now
    if changed := changes(card, now):
        raise UserError(
            f'the data of the run {path} have changed since it began: {changed}. Put the data back as they were, or '
            'train on these in another --workdir'
        )
    if 'dataset' not in card and any(note.endswith(BY_HASH) for note in source.notes):
        raise UserError(
            f'the run {path} is of an earlier version, which split a folder without a test folder in another way; '
            'expected the same test images to the end. Train in another --workdir'
        )
    if 'dataset' not in card and hosts.is_primary():
        print(
            f'note: {path} has {NO_RECORD}: whether they have changed is not known; it is recorded from now on',
            file=sys.stderr,
        )
    return card.get('dataset', now)


def changes(card: dict, now: dict) -> str:
    """Returns in words how data differ from what a run's card says of them, '' where they do not or it says nothing."""
    return '; '.join(identity.differences(card['dataset'], now)) if 'dataset' in card else ''


def warn_of_changes(path: Path, card: dict, source: Source) -> None:
    """Says in one line that the data of a finished run have changed since."""
    if 'dataset' in card and (changed := changes(card, identity.of(source))):
        print(f'warning: the data of {path} have changed since it began: {changed}', file=sys.stderr)


def of_run(path: Path, config: ConfigDict, images: bool = True) -> Source:
    """Returns the data of a run, with the class names and numbers that its net was trained with.

    Args:
      path: the workdir of the run.
      config: of the run.
      images: whether images are wanted; without, the splits of a run that has recorded its data have lengths alone,
        and the images need not be there.

    Raises:
      UserError: a class that the net was not trained with; a plugin of the run that is not there; see `sources.load`.
    """
    card = read_card(path) or {}
    was = card.get('plugins', [])
    plugins.load(config.get('plugins', ()), path, was)
    for line in plugins.changes(was, plugins.records(config.get('plugins', ()))):
        print(f'warning: {path}: {line}', file=sys.stderr)
    known = card.get('dataset')
    if known and not images:
        return identity.without_images(known)
    data = dict(config.data)
    if known is None and data['name'] == 'image_folder':
        # Before runs recorded their data, a folder without a test folder was split by rank: a hash would put images
        # that the run has trained on into its test split.
        data.setdefault('by', 'rank')
    try:
        return sources.load(data, config.minival, config.transform, known and known['class_names'])
    except identity.UnknownClassError as error:
        raise UserError(f'the data of the run {path} have changed since it began: {error}') from error


def check_split(path: Path, known: dict, split: str, examples: Examples, force: bool = False) -> None:
    """Compares a split with what its run recorded; says in one line on standard error where it has changed.

    Args:
      path: the workdir of the run.
      known: what it recorded.
      split: name of the split.
      examples: of it as they are now.
      force: goes on where the held-out images have changed.

    Raises:
      UserError: the images held out of training ('minival') have changed: which they are depends on all training
        images, so some of them have been trained on.
    """
    was, names = known['splits'].get(split), known['class_names']
    changed = was and identity.changed_split(split, was, identity.of_split(examples, len(names)), names)
    if not changed:
        return
    what = f'the data of the run {path} have changed since it began: {changed}'
    if split == 'minival' and not force:
        raise UserError(
            f'{what}. Images that are held out now may have been trained on; put the data back as they were, evaluate '
            'on --split=test, or use --force'
        )
    print(f'warning: {what}', file=sys.stderr)


def check_same_order(names: Sequence[str], other_names: Sequence[str], other: Path) -> None:
    """Raises UserError where nets do not have the same classes in the same order, so that weights can be averaged."""
    if changed := identity.changed_classes(names, other_names):
        raise UserError(
            f'weights can only be averaged of nets with the same classes in the same order; {other} differs: {changed}'
        )
