"""Writes files as torch.save does, without PyTorch: stand-ins under its names are pickled."""

import io
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from contextlib import contextmanager

import numpy as np

_KINDS = {'float32': 'FloatStorage', 'float16': 'HalfStorage', 'int64': 'LongStorage'}
_NAMES = {'torch': tuple(_KINDS.values()), 'torch._utils': ('_rebuild_tensor', '_rebuild_tensor_v2')}


@contextmanager
def _named():
    """Puts stand-ins where pickle looks for what it names."""
    kept = {name: sys.modules.get(name) for name in _NAMES}
    for name, functions in _NAMES.items():
        sys.modules[name] = types.ModuleType(name)
        for function in functions:
            stand_in = type(function, (), {'__module__': name, '__qualname__': function})
            setattr(sys.modules[name], function, stand_in)
    try:
        yield
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class Storage:
    def __init__(self, array):
        self.array = array


class Tensor:
    """An array that is pickled as a tensor of PyTorch; `old` as before its release 0.4."""

    def __init__(self, array, old=False):
        self.array, self.old = np.ascontiguousarray(array).reshape(np.shape(array)), old

    def __reduce__(self):
        strides = tuple(stride // self.array.itemsize for stride in self.array.strides)
        window = (Storage(self.array), 0, self.array.shape, strides)
        functions = sys.modules['torch._utils']
        if self.old:
            return functions._rebuild_tensor, window
        return functions._rebuild_tensor_v2, (*window, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def __init__(self, file, identify):
        super().__init__(file, 2)
        self.identify = identify

    def persistent_id(self, value):
        return self.identify(value)


def _kind(array):
    return getattr(sys.modules['torch'], _KINDS[array.dtype.name])


def save(path, tree):
    """Writes `tree`, whose tensors are `Tensor`s, as a zip archive."""
    kept = []

    def identify(value):
        if isinstance(value, Storage):
            kept.append(value.array)
            return 'storage', _kind(value.array), str(len(kept) - 1), 'cpu', value.array.size

    text = io.BytesIO()
    with _named():
        _Pickler(text, identify).dump(tree)
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('archive/data.pkl', text.getvalue())
        for key, array in enumerate(kept):
            file.writestr(f'archive/data/{key}', array.tobytes())
    return path


def save_tar(path, tree):
    """Writes `tree` as PyTorch 0.1 did: a tar of storages, tensors and a pickle."""
    kept = []

    def identify(value):
        if isinstance(value, Tensor):
            kept.append(value.array)
            return str(100 + len(kept) - 1)

    text, storages, tensors = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with _named():
        _Pickler(text, identify).dump(tree)
        for file in (storages, tensors):
            pickle.dump(len(kept), file, 2)
        for key, array in enumerate(kept):
            pickle.dump((key, 'cpu', _kind(array)), storages, 2)
            storages.write(struct.pack('<q', array.size) + array.tobytes())
            pickle.dump((100 + key, key, _kind(array)), tensors, 2)
            strides = [stride // array.itemsize for stride in array.strides]
            shape = struct.pack(f'<{2 * array.ndim}q', *array.shape, *strides)
            tensors.write(struct.pack('<i4x', array.ndim) + shape + struct.pack('<q', 0))
        pickle.dump([], storages, 2)
    with tarfile.open(path, 'w') as archive:
        for name, file in (('storages', storages), ('tensors', tensors), ('pickle', text)):
            member = tarfile.TarInfo(name)
            member.size = len(file.getvalue())
            archive.addfile(member, io.BytesIO(file.getvalue()))
    return path
