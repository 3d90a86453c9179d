"""Checks images before a run: cvresearch data prepare FOLDER|LIST.csv [--every 100] [--format json].

FOLDER is any that `image_folder` reads (a folder for each class; train/ and test/ or val/), or a copy of ILSVRC2012:
its two tars, or train/ and val/ as unpacked. It may lie in a bucket (gs://BUCKET/PATH), where it is read in place. A
LIST has a path and a label a line, below --root or the list's folder.
Nothing is written or converted. On one screen: counts, classes, sizes and modes, files that cannot be decoded, the
same image in several splits, what is suspicious. All files are read; with --every N one in N.

The exit code is 0 where a run would start and come to its end, 1 where it would not, 2 where there is no data set.
"""

import collections
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cvresearch.base import cli, tables
from cvresearch.base.errors import FAILED, UserError, lookup
from cvresearch.data import decode, files, folders, imagenet, locations, survey, walk
from cvresearch.data.names import printable
from cvresearch.data.remote import THREADS, Place, Remote

CHUNK = 256  # files a task
SHOWN = 5  # examples of each complaint
MANY = 500  # classes of ILSVRC2012's 1,000 that make a folder a copy of it

# A PNG and 22 CMYK JPEGs are among the training images (tensorflow/models, inception/data/build_imagenet_data.py).
PNG = ('n02105855_2933.JPEG',)
CMYK = tuple(
    f'{name}.JPEG'
    for name in (
        'n01739381_1309',
        'n02077923_14822',
        'n02447366_23489',
        'n02492035_15739',
        'n02747177_10752',
        'n03018349_4028',
        'n03062245_4620',
        'n03347037_9675',
        'n03467068_12171',
        'n03529860_11437',
        'n03544143_17228',
        'n03633091_5218',
        'n03710637_5125',
        'n03961711_5286',
        'n04033995_2932',
        'n04258138_17003',
        'n04264628_27969',
        'n04336792_7448',
        'n04371774_5854',
        'n04596742_4225',
        'n07583066_647',
        'n13037406_4650',
    )
)


def kind(data: bytes) -> str:
    """Returns what the bytes are: 'JPEG', 'CMYK JPEG', 'PNG', another format's name, or 'damaged: ...'."""
    try:
        known = decode.header(data)
        decode.decode(data, known, (known.height, known.width))
    except decode.DamagedError as error:
        return f'damaged: {error}'
    if data[:8] == b'\x89PNG\r\n\x1a\n':
        return 'PNG'
    if data[:2] != b'\xff\xd8':
        return 'another format'
    return 'JPEG' if known.plain_jpeg else 'CMYK JPEG'


def kinds(split, every: int) -> dict[str, list[str]]:
    """Returns {kind: ids} of one in `every` examples of a split, plain JPEGs left out."""
    ids_of = collections.defaultdict(list)

    def look(start: int) -> list[tuple[str, str]]:
        rows = []
        for number in range(start, min(start + CHUNK * every, len(split)), every):
            try:
                example = split[number]
                rows.append((example.id, kind(example.image)))
            except OSError as error:
                rows.append((split.ids([number])[0], f'damaged: {error.strerror or error}'))
        return rows

    starts = range(0, len(split), CHUNK * every)
    with ThreadPoolExecutor() as pool:
        looked = pool.map(look, starts)
        for rows in tqdm(looked, total=len(starts), unit_scale=CHUNK, unit='image', leave=False, disable=None):
            for name, what in rows:
                if what != 'JPEG':
                    ids_of[what.partition(':')[0]].append(f'{name} ({what})' if what.startswith('damaged') else name)
    return dict(ids_of)


def check(folder: str, every: int = 1) -> tuple[list[dict], bool]:
    """Returns rows of (check, got, expected, verdict), and whether all is well.

    Raises:
      UserError: no ImageNet there at all; a folder that is no class.
    """
    source = imagenet.imagenet(folder)
    rows: list[dict] = []

    def row(what: str, got, expected, well: bool) -> None:
        rows.append(dict(check=what, got=str(got), expected=str(expected), verdict='ok' if well else 'WRONG'))

    train = source.splits['train']
    if isinstance(train, files.Members):
        cut = files.list_tar(train.path).cut
        row('training tar is whole', ', '.join(cut[:SHOWN]) or 'whole', 'whole', not cut)
    for split, expected in source.facts.counts.items():
        images = source.splits[split]
        row(f'{split}: images', f'{len(images):,}', f'{expected:,}', len(images) == expected)
        of_class = np.bincount(images.labels, minlength=1000)
        missing = [imagenet.wnids()[label] for label in np.flatnonzero(of_class == 0)]
        classes = f'{1000 - len(missing)}{", without " + ", ".join(missing[:SHOWN]) if missing else ""}'
        row(f'{split}: classes, in alphabetical order of WordNet ids', classes, '1000', not missing)
        least, most = (732, 1300) if split == 'train' else (50, 50)
        row(
            f'{split}: images a class',
            f'{of_class.min()} to {of_class.max()}',
            f'{least} to {most}',
            (of_class.min(), of_class.max()) == (least, most),
        )
        wrong = _misplaced(images, split)
        row(f'{split}: names agree with classes', f'{len(wrong)} do not {wrong[:SHOWN] or ""}', '0 do not', not wrong)
        _content(row, split, kinds(images, every), every)
    return rows, all(checked['verdict'] == 'ok' for checked in rows)


def _misplaced(images, split: str) -> list[str]:
    """Returns the ids of images whose name says another class than their label."""
    names = images.ids(np.arange(len(images)))
    if split == 'train':
        expected = {wnid: label for label, wnid in enumerate(imagenet.wnids())}
        labels = [expected.get(name.partition('_')[0], -1) for name in names]
    else:
        labels = [imagenet.validation_labels()[int(Path(name).stem.rpartition('_')[2]) - 1] for name in names]
    return [names[place] for place in np.flatnonzero(np.array(labels) != images.labels)]


def _content(row, split: str, ids_of: dict[str, list[str]], every: int) -> None:
    damaged = ids_of.get('damaged', [])
    more = f', one in {every} looked at' if every > 1 else ''
    row(f'{split}: damaged images{more}', f'{len(damaged)} {"; ".join(damaged[:SHOWN])}'.strip(), '0', not damaged)
    known = {'PNG': PNG, 'CMYK JPEG': CMYK} if split == 'train' else {}
    for what in ('PNG', 'CMYK JPEG', 'another format'):
        names = ids_of.get(what, [])
        strange = sorted(set(names) - set(known.get(what, ())))
        note = f' {", ".join(strange[:SHOWN])}' if strange else ''
        expected = f'{len(known.get(what, ()))} known' if every == 1 else 'known ones only'
        row(
            f'{split}: {what} named JPEG{more}',
            f'{len(names)}, {len(strange)} of them unknown{note}',
            expected,
            not strange and (every > 1 or len(names) == len(known.get(what, ()))),
        )


def is_ilsvrc(folder: Place) -> bool:
    """Whether a folder is a copy of ILSVRC2012, whole or not, rather than images with some of its classes."""
    if any((folder / tar).exists() for tar in (imagenet.TRAIN_TAR, imagenet.VALIDATION_TAR)):
        return True
    train = folder / 'train'
    return train.is_dir() and len({*imagenet.wnids()} & {*walk.folders_in(train)}) > MANY


def _of_folder(where: Place, root: Path | None, every: int, style: str) -> int:
    write = lookup('format', {'text': survey.as_text, 'json': lambda report, _: json.dumps(report, indent=1)}, style)
    listed, folder = (str(where), root or '') if where.is_file() else ('', where)
    source = folders.image_folder(str(folder), list=listed)
    report = survey.survey(source, every, threads=THREADS if isinstance(where, Remote) else 0)
    print(write(report, printable(str(where))))
    return 0 if report['would_run'] else FAILED


def main(argv: list[str]) -> int:
    """Prints the report; returns the exit code: 0 all well, 1 something is wrong."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='folder',
        every='look into one file in so many (1: all)',
        places=('root',),
        root='folder of the images of a list',
        format='text (default) or json; of ILSVRC2012 also markdown, csv or latex',
    )
    if len(options.rest) > 1:
        raise UserError(f'expected one folder or list, got {" ".join(options.rest)}')
    every, style = cli.integer('every', options.every) if options.every else 1, options.format or 'text'
    folder = locations.place(options.rest[0], 'the folder') if options.rest else None
    if options.root and not (folder and folder.is_file()):
        raise UserError(f'--root is of a list; expected a file, got {folder or "none"}')
    if folder and not folder.exists():
        raise UserError(f'there is no folder or list {printable(str(folder))}')
    if folder and not (folder.is_dir() and is_ilsvrc(folder)):
        return _of_folder(folder, options.root, every, style)
    rows, well = check(str(folder or ''), every)
    if style == 'json':
        print(json.dumps({'checks': rows, 'would_run': well}, indent=1))
        return 0 if well else FAILED
    print(tables.render(rows, ('check', 'got', 'expected', 'verdict'), style))
    print(
        'All is well.'
        if well
        else 'A damaged or missing training image does not stop a run (it is replaced and '
        "counted); a wrong count or order of classes makes numbers that compare with nobody's."
    )
    return 0 if well else FAILED


if __name__ == '__main__':
    cli.run(main, now='cvresearch data prepare')
