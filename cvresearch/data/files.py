"""Image files where they lie: in folders, or inside tars that are read in place; on a disk, or in a bucket."""

import dataclasses
import functools
import hashlib
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data.examples import Example, Index
from cvresearch.data.names import hidden, is_image, printable
from cvresearch.data.remote import Opened, Place, Remote

READERS = 32  # of the tars inside a tar in a bucket


@dataclasses.dataclass(frozen=True)
class Files:
    """Files of one split, in folders below `root`. A million of them take 40 MB.

    Attributes:
      root: the folder of the split.
      folders: names of folders below it; '' is itself.
      folder: which one each file is in, int32 (n,).
      names: of the files, or their paths below that folder, bytes (n,).
      labels: int32 (n,), or (n, most).
      full_ids: ids are 'folder/name' rather than the name. Ids are text (`printable`), also of names that are not.
    """

    root: Place
    folders: tuple[str, ...]
    folder: np.ndarray
    names: np.ndarray
    labels: np.ndarray
    full_ids: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        name = self.names[index]
        if isinstance(self.root, Remote):
            place = self.root / self.folders[self.folder[index]] / os.fsdecode(name)
            return Example(place.read_bytes(), self.labels[index], self.ids([index])[0])
        folder, text = self._folders[self.folder[index]], printable(name)
        path = name if name.startswith(b'/') else folder.path + name  # a list may have whole paths
        return Example(read(path), self.labels[index], folder.prefix + text)

    @functools.cached_property
    def _folders(self) -> list['_Folder']:
        """What is the same for all files of a folder: they are many, and Python's lock is held for each."""
        named = self.full_ids and self.folders != ('',)
        return [
            _Folder(os.fsencode(self.root / folder) + b'/', f'{printable(folder)}/' if named else '')
            for folder in self.folders
        ]

    def ids(self, index: Index) -> list[str]:
        """Returns the ids of the files at `index`."""
        names = [printable(name) for name in self.names[np.asarray(index)]]
        if not self.full_ids or self.folders == ('',):
            return names
        folders = (printable(self.folders[of]) for of in self.folder[np.asarray(index)])
        return [f'{folder}/{name}' for folder, name in zip(folders, names, strict=True)]


class _Folder(NamedTuple):
    path: bytes
    prefix: str  # of the ids


def read(path: bytes) -> bytes:
    """Returns the bytes of a file; a third of the time that Python's own files take to be opened and closed."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(number).st_size
        data = os.read(number, size + 1)
        while len(data) != size:  # a slow disk gives less at once; some files do not know their size
            more = os.read(number, 1 << 20)
            if not more:
                break
            data += more
        return data
    finally:
        os.close(number)


@dataclasses.dataclass(frozen=True)
class Part:
    """The images of a split, or of a whole dataset, in the order of class and path.

    Attributes:
      place: where they are, for messages.
      root, folders, folder, names: as of `Files`.
      label: of each image, a place in `classes`, int32 (n,); (n, most), filled up with -1, where it has any number.
      classes: the names that occur, in order.
    """

    place: str
    root: Place
    folders: tuple[str, ...]
    folder: np.ndarray
    names: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Members:
    """Members of a tar, or of the tars inside a tar, read in place.

    Attributes:
      path: of the tar.
      names: of the members, bytes (n,).
      offsets: of their first bytes, int64 (n,).
      sizes: in bytes, int64 (n,).
      labels: int32 (n,).
    """

    path: Place
    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    _open: list = dataclasses.field(default_factory=list, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict:
        return self.__dict__ | {'_open': []}  # another process opens the file itself

    def __getitem__(self, index: int) -> Example:
        if isinstance(self.path, Remote):
            data = self.path.read(int(self.offsets[index]), int(self.offsets[index] + self.sizes[index]))
            return Example(data, self.labels[index], printable(self.names[index]))
        if not self._open:
            self._open.append(open(self.path, 'rb', buffering=0))
        # pread has no position: any number of threads may read at once.
        data = os.pread(self._open[0].fileno(), int(self.sizes[index]), int(self.offsets[index]))
        return Example(data, self.labels[index], printable(self.names[index]))

    def ids(self, index: Index) -> list[str]:
        """Returns the names of the members at `index`."""
        return [printable(name) for name in self.names[np.asarray(index)]]


@dataclasses.dataclass(frozen=True)
class Listing:
    """What is in a tar: for each image file its name, the tar it is in ('' for the outer one), offset and size.

    `cut` names the tars that end early.
    """

    names: np.ndarray
    tars: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    cut: tuple[str, ...]


def list_tar(path: Place) -> Listing:
    """Returns the image files of a tar and of the tars inside it.

    Reading the headers of ILSVRC's 138 GB takes about a minute, so the listing is kept in the user's cache folder,
    under the tar's path, size and time of change (in a bucket, its mark there). In a bucket all of the tar is read for
    it, many pieces at once.
    """
    kept = _kept(path)
    if kept.exists():
        with np.load(kept, allow_pickle=False) as arrays:
            return Listing(**{**arrays, 'cut': tuple(map(str, arrays['cut']))})
    listing = _read_headers(path)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f'{kept.name}.{os.getpid()}.tmp')
        with open(temporary, 'wb') as file:
            np.savez(file, **{**dataclasses.asdict(listing), 'cut': np.array(listing.cut, dtype=np.str_)})
        os.replace(temporary, kept)
    except OSError:
        pass  # a home that cannot be written costs the minute again, no more
    return listing


def is_listed(path: Place) -> bool:
    """Whether the listing of a tar is kept on this machine, so that `list_tar` reads nothing of the tar."""
    return _kept(path).exists()


def _kept(path: Place) -> Path:
    stamp = hashlib.sha256(_mark(path).encode()).hexdigest()[:16]
    folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'cvresearch'
    return folder / f'{path.name}.{stamp}.npz'


def _mark(path: Place) -> str:
    if isinstance(path, Remote):
        return path.mark
    stat = path.stat()
    return f'{path.absolute()} {stat.st_size} {stat.st_mtime_ns}'


def _opened(path: Place):
    return Opened(path) if isinstance(path, Remote) else open(path, 'rb')


def _read_headers(path: Place) -> Listing:
    cut: list[str] = []
    with _opened(path) as file:
        outer = list(_members(file, 0, path.name, cut))
        end = file.seek(0, os.SEEK_END)

    def inside(item) -> tuple[list[tuple[bytes, bytes, int, int]], list[str]]:
        member, offset = item
        if not member.name.lower().endswith('.tar'):
            return [(os.fsencode(Path(member.name).name), b'', offset, member.size)], []
        cut_inside: list[str] = []
        with _opened(path) as file:
            members = _members(file, member.offset_data, member.name, cut_inside, member.size)
            tar = os.fsencode(member.name)
            return [(os.fsencode(Path(m.name).name), tar, at, m.size) for m, at in members], cut_inside

    with ThreadPoolExecutor(READERS if isinstance(path, Remote) else 1) as pool:
        read = list(pool.map(inside, outer))
    # A header may say any size: no more is read than there is.
    rows = [(name, tar, at, min(size, max(end - at, 0))) for part, _ in read for name, tar, at, size in part]
    rows = [row for row in rows if is_image(row[0]) and not hidden(row[0])]
    cut += [name for _, names in read for name in names]
    names, tars, offsets, sizes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Listing(
        np.array(names, np.bytes_),
        np.array(tars, np.bytes_),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
        tuple(cut),
    )


def _members(file, start: int, name: str, cut: list[str], size: int | None = None):
    """Yields (member, offset of its data) of the tar that begins at `start`; notes in `cut` that it ends early.

    Only plain files: links, devices and sparse files are passed over.
    """
    some = False
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Part(file, start, size)), mode='r:') as tar:
            while (member := tar.next()) is not None:
                some = True
                cast(Any, tar).members.clear()  # or a million of them stay
                if member.isfile() and not member.issparse():
                    yield member, start + member.offset_data
    except tarfile.ReadError as error:
        if start == 0 and not some and _size(file) > 1024:
            raise UserError(f'{file.name} is not a tar: {error}') from error
        cut.append(name)


def _size(file) -> int:
    return file.size if isinstance(file, Opened) else os.fstat(file.fileno()).st_size


class _Part:
    """The bytes of a file from `start` on, as a file of its own."""

    def __init__(self, file, start: int, size: int | None):
        self._file, self._start = file, start
        self._size = _size(file) - start if size is None else size
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        remaining = max(self._size - self._at, 0)
        if not remaining:  # also where a header has sent us: to no place that a file can have
            return b''
        self._file.seek(self._start + self._at)  # others read the same file in between
        data = self._file.read(remaining if size < 0 else min(size, remaining))
        self._at += len(data)
        return data
