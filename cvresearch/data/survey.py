"""What lies in a person's folder of images, before a run is started on it: every file is read and decoded once."""

import hashlib
import os
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cvresearch.base import tables
from cvresearch.base.errors import UserError
from cvresearch.data import decode, decoded, identity, modes
from cvresearch.data.decode import DamagedError
from cvresearch.data.examples import Encoded, Source, ids, labels_of
from cvresearch.data.folders import alike

CHUNK = 64  # files a task
SHOWN = 5  # examples of each complaint; JSON has all
CLASSES_SHOWN = 20
SLIVER = 10  # the long side is more than so many times the short one
UNBALANCED = 20  # the largest class has more than so many times the images of the smallest
ORIENTATION = 0x0112  # the tag of EXIF
# Folders that are rarely meant to be classes. What systems leave behind (`names.SYSTEM`) is left out before.
ODD_NAMES = re.compile(
    r'(?i)new folder.*|untitled.*|.*\bcopy\b.*|.*\bbackup\b.*|unsorted|misc|tmp|temp|thumb(nail)?s?|cache|trash|deleted'
    r'|images?|img|pictures|photos|data|dataset|labels?|annotations?|augmented|train.*|test.*|val(id.*)?'
)
# The endings of names, by the format that Pillow finds.
ENDINGS = {
    'JPEG': ('jpg', 'jpeg', 'jfif', 'jpe'),
    'MPO': ('jpg', 'jpeg', 'jfif', 'jpe'),
    'PNG': ('png',),
    'GIF': ('gif',),
    'BMP': ('bmp',),
    'WEBP': ('webp',),
    'TIFF': ('tif', 'tiff'),
    'PPM': ('ppm', 'pgm', 'pbm', 'pnm'),
}


class Look(NamedTuple):
    """What one file is; of one that cannot be decoded, `wrong` says why, and the rest is empty."""

    id: str
    label: int
    digest: bytes = b''
    height: int = 0
    width: int = 0
    mode: str = ''
    turned: bool = False  # its EXIF data ask for a rotation or a mirror image
    named_wrong: str = ''  # its format, where the ending of its name is another format's
    wrong: str = ''


def survey(source: Source, every: int = 1, most_damaged: float = 0.001, threads: int = 0) -> dict:
    """Returns a report on a source of encoded images, which JSON can hold.

    Args:
      source: of files; labels are places in its class names.
      every: one file in so many is looked at.
      most_damaged: share of the training images above which damage stops a run (config.data.most_damaged).
      threads: that read and decode; 0 for one a core.

    Returns:
      classes; notes: what was left out, and how the data were split; splits: for each its counts, sizes, modes,
      unreadable files and duplicates; duplicates: between splits; problems: for which a run would not start, or not
      come to its end; warnings: what a person should look at; would_run: whether there are no problems.

    Raises:
      RunError: memory is lacking.
    """
    names = source.facts.class_names
    looks = {split: look_all(examples, every, threads) for split, examples in source.splits.items()}
    splits = {split: _of_split(source.splits[split], looks[split], names) for split in looks}
    shared = _shared(looks)
    report = {'classes': list(names), 'every': every, 'notes': list(source.notes), 'splits': splits}
    report |= {'duplicates': shared, 'problems': _problems(source, splits, most_damaged)}
    warnings = [*_of_classes(source, names), *_of_files(splits), *_of_duplicates(splits, shared)]
    return report | {'warnings': warnings, 'would_run': not report['problems']}


def look_all(examples: Encoded, every: int = 1, threads: int = 0) -> list[Look]:
    """Returns what the files of a split are, one in `every`, with a bar of progress on standard error."""
    threads = threads or len(os.sched_getaffinity(0))

    def some(start: int) -> list[Look]:
        stop = min(start + CHUNK * every, len(examples))
        return [look(examples, number, threads) for number in range(start, stop, every)]

    starts, looks = range(0, len(examples), CHUNK * every), []
    total = len(range(0, len(examples), every))
    with ThreadPoolExecutor(threads) as pool, tqdm(total=total, unit='image', leave=False, disable=None) as bar:
        for part in pool.map(some, starts):
            looks += part
            bar.update(len(part))
    return looks


def look(examples: Encoded, number: int, threads: int = 1) -> Look:
    """Returns what a file is; it is decoded as an evaluation decodes it.

    Raises:
      RunError: memory is lacking.
    """
    (name,), data = ids(examples, [number]), b''
    label = int(np.ravel(_labels(examples)[number])[0])
    try:
        data = examples[number].image
        known = decode.header(data)
        decode.decode(data, known)
        with modes.opened(data) as image:
            turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
            other = '' if _fits(name, image.format or '') else image.format or ''
            mode = image.mode
    except Exception as error:
        if decoded.is_lack_of_memory(error):
            raise decoded.lack_of_memory(name, data, threads) from error
        if not isinstance(error, DamagedError | OSError):
            raise
        return Look(name, label, wrong=(error.strerror if isinstance(error, OSError) else None) or str(error))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return Look(name, label, digest, known.height, known.width, mode, turned, other)


def _labels(examples: Encoded) -> np.ndarray:
    labels = labels_of(examples)
    assert labels is not None  # of files they are known
    return labels


def _counts(examples: Encoded, classes: int) -> np.ndarray:
    labels = _labels(examples)
    return np.bincount(labels[labels >= 0], minlength=classes)  # -1 fills up the rows of images with several labels


def _fits(name: str, kind: str) -> bool:
    return name.lower().endswith(tuple(f'.{ending}' for ending in ENDINGS.get(kind, ()))) or kind not in ENDINGS


def _of_split(examples: Encoded, looks: Sequence[Look], names: Sequence[str]) -> dict:
    good = [seen for seen in looks if not seen.wrong]
    sides = {side: sorted(getattr(seen, side) for seen in good) for side in ('width', 'height')}
    sizes = {side: [all_[0], round(statistics.median(all_)), all_[-1]] for side, all_ in sides.items() if all_}
    counts = _counts(examples, len(names)).tolist()
    slivers = [seen for seen in good if max(seen.height, seen.width) > SLIVER * min(seen.height, seen.width)]
    return {
        'images': len(examples),
        'looked_at': len(looks),
        'per_class': dict(zip(names, counts, strict=True)),
        'unreadable': {seen.id: seen.wrong for seen in looks if seen.wrong},
        **sizes,
        'modes': dict(Counter(seen.mode for seen in good).most_common()),
        'slivers': {seen.id: f'{seen.width} x {seen.height}' for seen in slivers},
        'turned': [seen.id for seen in good if seen.turned],
        'named_wrong': {seen.id: seen.named_wrong for seen in good if seen.named_wrong},
        'duplicates': [_group({'': group}, names) for group in _same(good)],
    }


def _same(looks: Iterable[Look]) -> list[list[Look]]:
    """Returns groups of files with the same bytes."""
    groups: dict[bytes, list[Look]] = defaultdict(list)
    for seen in looks:
        groups[seen.digest].append(seen)
    return [group for group in groups.values() if len(group) > 1]


def _shared(looks: dict[str, list[Look]]) -> list[dict]:
    """Returns the contents that several splits have."""
    groups: dict[bytes, dict[str, list[Look]]] = defaultdict(lambda: defaultdict(list))
    for split, of_split in looks.items():
        for seen in of_split:
            if not seen.wrong:
                groups[seen.digest][split].append(seen)
    return [_group(group) for group in groups.values() if len(group) > 1]


def _group(of_split: dict[str, list[Look]], names: Sequence[str] = ()) -> dict:
    """Returns the files of one content, and whether they are of several classes."""
    labels = {seen.label for looks in of_split.values() for seen in looks}
    files = {split: [seen.id for seen in looks] for split, looks in of_split.items()}
    return {'files': files.get('', files), 'several_classes': len(labels) > 1}


def _problems(source: Source, splits: dict, most: float) -> list[str]:
    problems = []
    try:
        identity.of(source)
    except UserError as error:
        problems.append(str(error))
    if 'train' not in splits:
        problems.append('there are no training images: evaluation alone can use this folder')
    for split, values in splits.items():
        bad, looked = values['unreadable'], values['looked_at']
        if split != 'train' and bad:
            problems.append(f'{split}: {len(bad):,} unreadable, and evaluation leaves no image out: {_few(bad)}')
        elif len(bad) > most * looked:
            problems.append(
                f'{split}: {len(bad):,} of {looked:,} unreadable, above the share config.data.most_damaged={most:g} '
                f'with which a run goes on: {_few(bad)}'
            )
    return problems


def _of_classes(source: Source, names: Sequence[str]) -> list[str]:
    split = 'train' if 'train' in source.splits else 'test'
    counts = _counts(source.splits[split], len(names))
    single = [names[label] for label in np.flatnonzero(counts == 1).tolist()]
    problems = [f'{split}: one image in {_named(single)}'] if single else []
    if len(names) == 1:
        problems.append(f'there is one class, {names[0]!r}: nothing is to be told apart')
    occurring = counts[counts > 0]
    if len(occurring) and occurring.max() > UNBALANCED * occurring.min():
        most, least = names[int(counts.argmax())], names[int(np.where(counts > 0, counts, occurring.max()).argmin())]
        problems.append(
            f'{split}: {most!r} has {occurring.max():,} images and {least!r} {occurring.min():,}; '
            'config.loss.class_weights=balanced or config.sampling.name=balanced weigh them'
        )
    odd = [name for name in names if ODD_NAMES.fullmatch(name)]
    problems += [f'are they classes? {_named(odd)}'] if odd else []
    return [
        *problems,
        *(
            f'names that differ only in case, blanks or the form of Unicode: {_named(group, ascii)}'
            for group in alike(names)
        ),
    ]


def _of_files(splits: dict) -> list[str]:
    problems = []
    for split, values in splits.items():
        if values['unreadable'] and split == 'train':
            problems.append(
                f'train: {len(values["unreadable"]):,} unreadable, replaced in training and counted: '
                f'{_few(values["unreadable"])}'
            )
        if slivers := values['slivers']:
            problems.append(f'{split}: {len(slivers):,} more than {SLIVER} times as long as wide: {_few(slivers)}')
        if turned := values['turned']:
            problems.append(
                f'{split}: {len(turned):,} with an orientation in EXIF, which is not followed: '
                f'{", ".join(turned[:SHOWN])}'
            )
        if other := values['named_wrong']:
            problems.append(
                f'{split}: {len(other):,} of another format than their names say, read as what they are: {_few(other)}'
            )
    return problems


def _of_duplicates(splits: dict, shared: list[dict]) -> list[str]:
    problems = []
    if shared:
        pairs = ['; '.join(f'{split}: {files[0]}' for split, files in group['files'].items()) for group in shared]
        more = sum(group['several_classes'] for group in shared)
        under = f' ({more:,} under several classes)' if more else ''
        problems.append(
            f'images in several splits, so that the test is not of new ones: {len(shared):,}{under}: '
            f'{" | ".join(pairs[:SHOWN])}'
        )
    for split, values in splits.items():
        groups = values['duplicates']
        several = [group for group in groups if group['several_classes']]
        if groups:
            first = (several or groups)[0]['files']
            under = f', {len(several):,} of them under several classes' if several else ''
            problems.append(f'{split}: images there more than once: {len(groups):,}{under} ({", ".join(first[:2])})')
    return problems


def _few(reasons: dict[str, str]) -> str:
    more = f' and {len(reasons) - SHOWN:,} more' if len(reasons) > SHOWN else ''
    return '; '.join(f'{name} ({why})' for name, why in list(reasons.items())[:SHOWN]) + more


def _named(names: Sequence[str], shown=repr) -> str:
    more = f' and {len(names) - SHOWN:,} more' if len(names) > SHOWN else ''
    return ', '.join(map(shown, names[:SHOWN])) + more


def as_text(report: dict, place: str | Path) -> str:
    """Returns a report for a person, on a screen."""
    splits, names = report['splits'], report['classes']
    lines = [f'{place}: {len(names):,} classes, {sum(values["images"] for values in splits.values()):,} images']
    lines += [f'  {note}' for note in report['notes']]
    rows = [
        {
            'split': split,
            'images': values['images'],
            'unreadable': len(values['unreadable']),
            'width': _span(values.get('width')),
            'height': _span(values.get('height')),
            'modes': ', '.join(f'{mode} {count:,}' for mode, count in values['modes'].items()),
        }
        for split, values in splits.items()
    ]
    lines += ['', tables.render(rows, tuple(rows[0]))]
    if report['every'] > 1:
        lines.append(f'(one file in {report["every"]} was looked at)')
    of_class = [
        {'class': name} | {split: values['per_class'][name] for split, values in splits.items()}
        for name in names[:CLASSES_SHOWN]
    ]
    lines += ['', tables.render(of_class, tuple(of_class[0]))]
    if len(names) > CLASSES_SHOWN:
        lines.append(f'and {len(names) - CLASSES_SHOWN:,} more classes (--format json has all)')
    lines += ['', *(f'look at: {text}' for text in report['warnings'])]
    lines += [f'PROBLEM: {text}' for text in report['problems']]
    return '\n'.join([*lines, 'A run would start.' if report['would_run'] else 'A run would not come to its end.'])


def _span(values: list[int] | None) -> str:
    return f'{values[0]:,} to {values[2]:,}, median {values[1]:,}' if values else '-'
