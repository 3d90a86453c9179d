"""What in a folder counts as an image, and what is left out and told.

The rule is torchvision's ImageFolder's where it has one: a folder's class has the image files at any depth below it,
links are followed, a file is an image by the ending of its name in any case. Beyond it: more endings; hidden entries
and what systems leave behind are no images; a link that leads back into itself is not followed. Folders in buckets
have no links.
"""

import glob
import os
from collections.abc import Iterable, Sequence

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data.names import ENDINGS, hidden, is_image, printable
from cvresearch.data.remote import Place, Remote


class _Listed:
    """An entry of a folder in a bucket, as `os.DirEntry` is one of a folder of this machine."""

    def __init__(self, place: Remote):
        self.name, self.path = os.fsencode(place.name), place
        self.is_dir, self.is_file = place.is_dir, place.is_file


Entry = os.DirEntry | _Listed


class LeftOut:
    """What was left out of a dataset: counted by reason, with the first of each."""

    def __init__(self, root: Place):
        self._root = os.fsencode(root)
        self.counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def note(self, reason: str, path: bytes | Place) -> None:
        """Counts an entry."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self._first.setdefault(reason, printable(os.path.relpath(os.fsencode(path), self._root)))

    def lines(self) -> tuple[str, ...]:
        """Returns one line that says it all, or none where nothing was left out."""
        if not self.counts:
            return ()
        parts = [
            f'{reason}: {count:,} ({"" if count == 1 else "first: "}{self._first[reason]})'
            for reason, count in self.counts.items()
        ]
        return (f'left out: {"; ".join(parts)}',)


def folders_in(root: Place, left_out: LeftOut | None = None) -> list[str]:
    """Returns the names of the folders in `root`, sorted; hidden ones are left out.

    Raises:
      UserError: `root` cannot be read.
    """
    names = []
    for entry in _entries(root):
        if not _is_folder(entry):
            continue
        if hidden(entry.name):
            if left_out:
                left_out.note('hidden or system entries', entry.path)
        else:
            names.append(os.fsdecode(entry.name))
    return sorted(names)


def images_in(root: Place, left_out: LeftOut | None = None) -> list[bytes]:
    """Returns the names of the image files that lie directly in `root`, sorted.

    Raises:
      UserError: `root` cannot be read.
    """
    return sorted(_images(_entries(root), left_out))


def images_below(root: Place, left_out: LeftOut | None = None) -> list[bytes]:
    """Returns the paths of all image files at any depth below `root`, relative to it, sorted.

    Raises:
      UserError: one of the folders cannot be read.
    """
    paths: list[bytes] = []
    # By identity, not by path: a link may lead back to a folder under another name.
    waiting: list[tuple[bytes | Place, bytes, frozenset]] = [(root, b'', frozenset([_identity(root)]))]
    while waiting:
        path, prefix, above = waiting.pop()
        entries = _entries(path)
        paths += [prefix + name for name in _images(entries, left_out)]
        for entry in entries:
            if not _is_folder(entry):
                continue
            if hidden(entry.name):
                if left_out:
                    left_out.note('hidden or system entries', entry.path)
            elif (identity := _identity(entry.path)) in above:
                if left_out:
                    left_out.note('links that lead back to a folder above', entry.path)
            else:
                waiting.append((entry.path, prefix + entry.name + b'/', above | {identity}))
    return sorted(paths)


def list_folders(root: Place, folders: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns which folder each image file is in, int32 (n,), and its name, bytes (n,), sorted within each folder."""
    return packed([images_in(root / folder) for folder in folders])


def packed(names: Sequence[list[bytes]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the names in each folder as two arrays: the folder's number, int32 (n,), and the name, bytes (n,)."""
    counts = [len(folder_names) for folder_names in names]
    arrays = [np.array(folder_names, np.bytes_) if folder_names else np.zeros(0, 'S1') for folder_names in names]
    return np.repeat(np.arange(len(names), dtype=np.int32), counts), np.concatenate([np.zeros(0, 'S1'), *arrays])


def _images(entries: Iterable[Entry], left_out: LeftOut | None) -> list[bytes]:
    names = []
    for entry in entries:
        if _is_folder(entry):
            continue
        if hidden(entry.name):
            reason = 'hidden or system entries'
        elif not is_image(entry.name):
            reason = 'files that are no images by their names'
        elif not entry.is_file() and os.path.exists(entry.path):  # reading a pipe would wait for ever
            reason = 'entries that are neither files nor folders'
        else:  # also a link that leads nowhere: it counts as an image that cannot be read
            names.append(entry.name)
            continue
        if left_out:
            left_out.note(reason, entry.path)
    return names


def _entries(path: bytes | Place) -> Sequence[Entry]:
    if isinstance(path, Remote):
        return [_Listed(place) for place in path.iterdir()]
    try:
        with os.scandir(os.fsencode(path)) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f'the folder {printable(os.fsencode(path))} cannot be read ({error.strerror or error}); mend that, '
            'or take it away'
        ) from error


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(path: bytes | Place) -> object:
    if isinstance(path, Remote):
        return str(path)
    status = os.stat(path)
    return status.st_dev, status.st_ino


def images_of(path: str) -> list[str]:
    """Returns the image files that a path names: itself; those in a folder, at any depth, or of a pattern, sorted.

    Raises:
      UserError: a folder without images, or a pattern that nothing fits.
    """
    if os.path.isdir(path):
        files = []
        for folder, below, names in os.walk(path):
            below[:] = [name for name in below if not name.startswith('.')]
            files += [os.path.join(folder, name) for name in names if name[:1] != '.' and is_image(os.fsencode(name))]
        if not files:
            raise UserError(f'there is no image in the folder (files that end in {", ".join(ENDINGS)})')
        return sorted(files)
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]
    files = [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
    if not files:
        raise UserError('no file fits this pattern')
    return sorted(files)
