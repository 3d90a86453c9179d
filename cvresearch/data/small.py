"""Small colour sets from their original files, read into memory: CIFAR-10 and -100, SVHN."""

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data import locations
from cvresearch.data.examples import Arrays, Facts, Source

CIFAR10_CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
SIDE = 32
PIXELS = 3 * SIDE * SIDE
MOST_BYTES = 1 << 28  # unpacked: CIFAR's archives hold 186 MB


def cifar10(root: str = '') -> Source:
    """CIFAR-10 (Krizhevsky 2009): 50,000 images to train and 10,000 to test, 32x32.

    `root` holds cifar-10-python.tar.gz or cifar-10-binary.tar.gz, or what is in either.
    """
    read = _CifarFiles('cifar10', root, 'cifar-10', 'cifar-10-batches')
    if read.binary:
        parts = {
            'train': [read(f'data_batch_{number}.bin') for number in range(1, 6)],
            'test': [read('test_batch.bin')],
        }
        arrays = {split: _cifar_binary(b''.join(files), 1) for split, files in parts.items()}
    else:
        parts = {'train': [read(f'data_batch_{number}') for number in range(1, 6)], 'test': [read('test_batch')]}
        arrays = {split: _cifar_pickles(files, 'labels') for split, files in parts.items()}
    facts = ('cifar10', CIFAR10_CLASSES, (SIDE, SIDE, 3), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    return _cifar(facts, arrays)


def cifar100(root: str = '') -> Source:
    """CIFAR-100 (Krizhevsky 2009): 50,000 images to train and 10,000 to test, 32x32, 100 fine classes.

    `root` holds cifar-100-python.tar.gz or cifar-100-binary.tar.gz, or what is in either.
    """
    read = _CifarFiles('cifar100', root, 'cifar-100', 'cifar-100')
    if read.binary:
        arrays = {split: _cifar_binary(read(f'{split}.bin'), 2) for split in ('train', 'test')}
        names = read('fine_label_names.txt').decode().split()
    else:
        arrays = {split: _cifar_pickles([read(split)], 'fine_labels') for split in ('train', 'test')}
        names = _unpickled(read('meta'))['fine_label_names']
    names = tuple(name.decode() if isinstance(name, bytes) else name for name in names)
    facts = ('cifar100', names, (SIDE, SIDE, 3), (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    return _cifar(facts, arrays)


def svhn(root: str = '', extra: bool = False) -> Source:
    """SVHN, cropped digits (Netzer et al. 2011): 73,257 images to train and 26,032 to test, 32x32.

    Args:
      root: holds train_32x32.mat and test_32x32.mat, and for `extra` extra_32x32.mat.
      extra: train on the 531,131 easier images too, as most papers do.
    """
    names = {'train': ['train'] + ['extra'] * extra, 'test': ['test']}
    needed = tuple(f'{name}_32x32.mat' for part in names.values() for name in part)
    place = locations.find(
        'svhn', root, (needed,), (f'download {" and ".join(needed)} of ufldl.stanford.edu/housenumbers',)
    )
    splits = {}
    for split, parts in names.items():
        files = [_mat(place / f'{part}_32x32.mat') for part in parts]
        images = np.concatenate([np.ascontiguousarray(file['X'].transpose(3, 0, 1, 2)) for file in files])
        labels = np.concatenate([file['y'][:, 0] for file in files]).astype(np.int32) % 10  # 10 stands for the digit 0
        splits[split] = Arrays(images, labels)
    counts = dict(train=73_257 + 531_131 * extra, test=26_032)
    for split, count in counts.items():
        _check_count(f'svhn, {split}', len(splits[split]), count)
    facts = Facts('svhn', tuple('0123456789'), (SIDE, SIDE, 3), (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
    return Source(facts, splits)


def _mat(path: Path) -> dict[str, np.ndarray]:
    """Reads the images `X` and the labels `y` of a file of MATLAB, after its header has said that they are SVHN's."""
    from scipy.io import loadmat, whosmat

    images = {name: shape for name, shape, _ in whosmat(path)}.get('X', ())
    if images[:3] != (SIDE, SIDE, 3) or images[3] > 531_131:
        raise UserError(f'{path} says it has images of {images}; it is not the original')
    return loadmat(path, variable_names=('X', 'y'))


class _CifarFiles:
    """Reads a file of CIFAR by its name, from the folder or from the archive."""

    def __init__(self, name: str, root: str, archive: str, folder: str):
        binary = {'cifar10': 'cifar-10-batches-bin', 'cifar100': 'cifar-100-binary'}[name]
        pickled = {'cifar10': 'cifar-10-batches-py', 'cifar100': 'cifar-100-python'}[name]
        archives = (f'{archive}-binary.tar.gz', f'{archive}-python.tar.gz')
        place = locations.find(
            name,
            root,
            ((binary,), (pickled,), (archives[0],), (archives[1],)),
            (f'download {archives[1]} or {archives[0]} of www.cs.toronto.edu/~kriz/cifar.html; it is read as it is,',),
        )
        self._folder = next((place / entry for entry in (binary, pickled) if (place / entry).is_dir()), None)
        self._archive = next((place / entry for entry in archives if (place / entry).is_file()), None)
        self.binary = 'bin' in str((self._folder or self._archive or place).name)
        self._held: dict[str, bytes] = {}

    def __call__(self, name: str) -> bytes:
        """Returns the bytes of a file.

        Raises:
          UserError: it is not there.
        """
        try:
            if self._folder:
                return (self._folder / name).read_bytes()
            if not self._held and self._archive:  # once: going through the archive takes a second
                with tarfile.open(self._archive) as tar:
                    self._held = dict(_members(tar))
            return self._held[name]
        except (OSError, KeyError, EOFError, tarfile.TarError) as error:
            raise UserError(
                f'{self._folder or self._archive} cannot be read ({type(error).__name__}: {error}); download it again'
            ) from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the bytes of each plain file; nothing is written anywhere.

    Raises:
      UserError: they are far larger than CIFAR is.
    """
    allowed = MOST_BYTES
    for member in tar:
        allowed -= member.size  # also of what is passed over: it is unpacked on the way
        if allowed < 0:
            raise UserError(f'{tar.name} unpacks to more than {MOST_BYTES:,} bytes; it is not the original')
        if member.isreg() and not member.issparse() and (file := tar.extractfile(member)):
            yield Path(member.name).name, file.read()


def _cifar(facts: tuple, arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> Source:
    counts = dict(train=50_000, test=10_000)
    for split, count in counts.items():
        _check_count(f'{facts[0]}, {split}', len(arrays[split][0]), count)
    name, classes, shape, mean, std = facts
    splits = {split: Arrays(*both) for split, both in arrays.items()}
    return Source(Facts(name, classes, shape, mean, std, counts), splits)


def _cifar_binary(data: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads rows of labels (the last is the fine one) and a red, a green and a blue plane."""
    rows = np.frombuffer(data, np.uint8).reshape(-1, label_bytes + PIXELS)
    return _planes(rows[:, label_bytes:]), rows[:, label_bytes - 1].astype(np.int32)


def _cifar_pickles(files: list[bytes], labels: str) -> tuple[np.ndarray, np.ndarray]:
    tables = [_unpickled(file) for file in files]
    images = np.concatenate([table['data'] for table in tables])
    return _planes(images), np.concatenate([np.array(table[labels], np.int32) for table in tables])


def _planes(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


class _Harmless(pickle.Unpickler):
    """Reads arrays, numbers and text, and executes nothing: a pickle may name any function there is."""

    def find_class(self, module: str, name: str):
        if (module.replace('._core', '.core'), name) in _ARRAYS:
            return {
                '_reconstruct': np.empty(0).__reduce__()[0],
                'ndarray': np.ndarray,
                'dtype': np.dtype,
                'encode': _encode,
            }[name]
        raise UserError(f'a file of CIFAR asks for {module}.{name}; it is not the original')


_ARRAYS = {
    ('numpy.core.multiarray', '_reconstruct'),
    ('numpy', 'ndarray'),
    ('numpy', 'dtype'),
    ('_codecs', 'encode'),
}


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)


def _unpickled(data: bytes) -> dict:
    table = _Harmless(io.BytesIO(data), encoding='bytes').load()
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in table.items()}


def _check_count(what: str, got: int, expected: int) -> None:
    if got != expected:
        raise UserError(f'{what}: {got} images; expected {expected}. Download the files again')
