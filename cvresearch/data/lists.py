"""A list of images with their labels: a CSV file of path, label and, if it says so, split."""

import csv
import io
import os
from pathlib import Path

import numpy as np

from cvresearch.base.errors import UserError, nearest
from cvresearch.base.paths import local
from cvresearch.data.files import Part
from cvresearch.data.names import ROLES, printable

HEADS = {
    'path': 'path',
    'file': 'path',
    'filename': 'path',
    'file_name': 'path',
    'image': 'path',
    'label': 'label',
    'class': 'label',
    'labels': 'labels',
    'classes': 'labels',
    'tags': 'labels',
    'split': 'split',
    'set': 'split',
    'subset': 'split',
}
SPLITS = ROLES | {'minival': 'val'}
BAR, OTHERS = '|', '|;,/ '  # between labels: where nothing else is said, and what else is common


def read(path: str, root: str = '', separator: str = '') -> dict[str, Part]:
    """Returns {'train', 'test', 'val': images} of a list, as far as it names them; 'train' is all where it names none.

    The columns are path, label and split, in this order, or as a first line names them (`HEADS`; others are passed
    over). Commas, semicolons or tabs; UTF-8 with or without a mark, UTF-16 with one; any ends of lines. Paths are
    absolute or below `root`, else below the list's folder. A file may be listed twice if both lines say the same.

    Where the column is called `labels`, or a separator is given, an image has any number of labels, also none.

    Args:
      separator: between the labels of an image.
      path: of the list; where there is no such file, it is looked for in `root`.
      root: the folder of the images.

    Raises:
      UserError: no such file; a line that is short, a split that is unknown, a file that is not there, one file with
        two labels or in two splits.
    """
    file, folder = local(path, 'config.data.list'), local(root, 'config.data.root') if root else None
    if not file.is_file() and folder is not None:
        file = folder / path
    if not file.is_file():
        raise UserError(f'there is no list {path!r} (config.data.list){f", also not in {root}" if root else ""}')
    folder = file.parent if folder is None else folder
    rows: dict[str, tuple[str, str, int]] = {}
    lines, several = _rows(file, separator)
    for written, label, split, line in lines:
        name = os.path.normpath(written)  # ./a.jpg is a.jpg
        old = rows.setdefault(name, (label, split, line))
        if old[:2] != (label, split):
            both = f'{old[0]!r}{old[1] and f" ({old[1]})"} and {label!r}{split and f" ({split})"}'
            raise UserError(
                f'{file} says two things of {printable(name)}: {both}, in the lines {old[2]} and {line}; keep one'
            )
    if not rows:
        raise UserError(f'{file} lists no image; expected lines of path,label or path,label,split')
    if several:
        _check_separated(file, separator, [label for label, _, _ in rows.values()])
    separator = (separator or BAR) if several else ''
    places = {name: place for name in rows if (place := _below(folder, name)) is not None}
    if missing := [name for name in rows if name not in places]:
        raise UserError(
            f'{len(missing):,} of the {len(rows):,} files in {file} are not there (first: {printable(missing[0])}, '
            f'looked for below {folder}); set config.data.root to the folder of the images'
        )
    splits = sorted({split or 'train' for _, split, _ in rows.values()})
    cells = {n: (row[1] or 'train', _labels(row[0], separator)) for n, row in rows.items()}
    most = max(1, *(len(labels) for _, labels in cells.values())) if several else 0
    return {
        role: _part(file, folder, [(places[n], labels) for n, (part, labels) in cells.items() if part == role], most)
        for role in splits
    }


def _labels(cell: str, separator: str) -> tuple[str, ...]:
    parts = cell.split(separator) if separator else [cell]
    return tuple(dict.fromkeys(stripped for part in parts if (stripped := part.strip())))


def _check_separated(file: Path, separator: str, cells: list[str]) -> None:
    """Raises UserError where the labels seem to be separated by another character."""
    between = separator or BAR
    if any(between in cell for cell in cells):
        return
    for other in OTHERS[:2] if separator else OTHERS:
        separated = [cell for cell in cells if other in cell]
        if separated and other != between:
            raise UserError(
                f'{file}: no image has labels with {between!r} between, and {len(separated):,} have {other!r} (first: '
                f'{printable(separated[0])}); set config.data.separator to what stands between labels'
            )


def _rows(file: Path, separator: str) -> tuple[list[tuple[str, str, str, int]], bool]:
    """Returns path, label, split ('' where there is no such column) and number of each line; and whether labels are
    several.
    """
    rows, several = [], bool(separator)
    data = file.read_bytes()
    encoding = 'utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:  # names that are not UTF-8 come through as the system's own do
        text = data.decode(encoding, 'strict' if encoding == 'utf-16' else 'surrogateescape')
    except UnicodeDecodeError as error:
        raise UserError(f'{file} is no text: {error}') from error
    first = text.lstrip('\r\n').partition('\n')[0]
    delimiter = next((mark for mark in ',;\t' if mark in first), ',')
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, skipinitialspace=True)
    columns: dict[str, int] | None = None
    try:
        for cells in reader:
            cells, line = [cell.strip() for cell in cells], reader.line_num
            if not any(cells):
                continue
            if columns is None:
                columns, is_head = _columns(file, cells)
                several = several or 'labels' in columns
                columns = {'label' if head == 'labels' else head: place for head, place in columns.items()}
                if is_head:
                    continue
            rows.append((*_row(file, cells, columns, line, several), line))
    except csv.Error as error:
        raise UserError(f'{file}, line {reader.line_num}: {error}; expected path,label or path,label,split') from error
    return rows, several


def _columns(file: Path, cells: list[str]) -> tuple[dict[str, int], bool]:
    """Returns where each column is, and whether these cells are a heading."""
    heads = [HEADS.get(cell.lower()) for cell in cells]
    if 'path' in heads:
        if 'label' in heads and 'labels' in heads:
            raise UserError(f'{file} has the columns {", ".join(cells)}, and two of them are labels; leave one out')
        if 'label' not in heads and 'labels' not in heads:
            raise UserError(f'{file} has the columns {", ".join(cells)} and none is label; expected path,label[,split]')
        return {head: heads.index(head) for head in dict.fromkeys(heads) if head}, True
    if len(cells) not in (2, 3):
        raise UserError(
            f'{file} has {len(cells)} columns and no heading that says which they are (first line: '
            f'{printable(",".join(cells))}); expected path,label or path,label,split'
        )
    return dict(zip(('path', 'label', 'split'), range(len(cells)), strict=False)), False


def _row(file: Path, cells: list[str], columns: dict[str, int], line: int, several: bool) -> tuple[str, str, str]:
    needed = [place for head, place in columns.items() if not (several and head == 'label')]  # none is an answer
    if len(cells) <= max(columns.values()) or not all(cells[place] for place in needed):
        raise UserError(
            f'{file}, line {line}, is {printable(",".join(cells))!r}; expected {",".join(columns)}, none of them empty'
        )
    split = cells[columns['split']].lower() if 'split' in columns else ''
    if split and split not in SPLITS:
        raise UserError(f'{file}, line {line}, has the split {split!r}; {nearest(split, SPLITS)}')
    return cells[columns['path']], cells[columns['label']], SPLITS.get(split, '')


def _below(folder: Path, name: str) -> bytes | None:
    """Returns the path of a listed file, None where there is none; a path of Windows has its bars turned."""
    for written in (name, name.replace('\\', '/')):
        try:
            if os.path.lexists(folder / written) and not (folder / written).is_dir():
                return os.fsencode(os.path.normpath(written))
        except ValueError:  # a zero byte
            return None
    return None


def _part(file: Path, folder: Path, rows: list[tuple[bytes, tuple[str, ...]]], most: int) -> Part:
    """Returns the images of a split; labels are (n, most), or (n,) if `most` is 0."""
    classes = sorted({label for _, labels in rows for label in labels})
    if all(label.isascii() and label.isdecimal() for label in classes):
        classes.sort(key=lambda label: (int(label), label))  # 10 comes after 9
    number = {label: place for place, label in enumerate(classes)}
    numbered = sorted((sorted(number[label] for label in labels), name) for name, labels in rows)
    names = np.array([name for _, name in numbered], np.bytes_)
    label = np.array([[*row, *[-1] * (most - len(row))] for row, _ in numbered], np.int32)
    label = label if most else label[:, 0]
    return Part(printable(str(file)), folder, ('',), np.zeros(len(rows), np.int32), names, label, tuple(classes))
