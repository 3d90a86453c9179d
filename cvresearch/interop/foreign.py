"""What a file is that is no file of weights that can be read here, and what to do with it."""

import re
from pathlib import Path

START = 512  # bytes that are looked at
_UNPACK = 'is compressed ({}); unpack it first'
_KINDS = [
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what)
    for pattern, what in (
        (rb'\Z', 'is empty; fetch it again'),
        (rb'version https://git-lfs\.github\.com', 'is a pointer of Git LFS, not the file itself; run "git lfs pull"'),
        (rb'\s*(<!--.*-->\s*)?<(!doctype html|html|head|body)', 'is a web page, not weights; fetch the file itself'),
        (rb'\s*<', 'is XML, not weights: {text}'),
        (rb'\x1f\x8b', _UNPACK.format('gzip')),
        (rb'BZh', _UNPACK.format('bzip2')),
        (rb'\xfd7zXZ\0', _UNPACK.format('xz')),
        (rb'\x28\xb5\x2f\xfd', _UNPACK.format('zstd')),
        (rb'7z\xbc\xaf\x27\x1c', _UNPACK.format('7z')),
        (rb'Rar!', _UNPACK.format('rar')),
        (rb'\x93NUMPY', 'is a single array of NumPy; save all arrays by their names with numpy.savez'),
        (rb'GGUF', 'is a GGUF file, of a language model'),
        (rb'....TFL3', 'is a TensorFlow Lite model'),
        (
            rb'\x08.{1,3}(pytorch|onnx|tf2onnx|.{0,3}\x12)',
            'looks like an ONNX model; give the weights that it was made of',
        ),
        (rb'\0+\Z', 'begins with zeros alone: its download did not end; fetch it again'),
        (rb'[\x20-\x7e\s]+\Z', 'is text, not weights: {text}'),
    )
]
READ = '.safetensors, .pth, .npz, .h5 and .keras files'


def described(start: bytes) -> str:
    """Returns what a file is by its first bytes, for messages: 'it is a web page, ...'."""
    for pattern, what in _KINDS:
        if pattern.match(start):
            text = ' '.join(start[:80].decode(errors='replace').split())
            return f'it {what.format(text=repr(text))}'
    return f'its first bytes are of no format known here ({READ})'


def described_zip(names: list[str]) -> str:
    """Returns what a zip archive is that is of none of the known kinds."""
    if any(Path(name).name.startswith(('archive_format', 'serialized_exported_program')) for name in names):
        return 'it is a program of torch.export; save the state_dict of its net'
    inside = [name for name in names if name.lower().endswith(('.pth', '.pt', '.bin', '.safetensors', '.h5', '.ckpt'))]
    if inside:
        return f'it is a zip archive with {inside[0]!r} in it; unpack it first'
    return 'it is a zip archive, but neither of PyTorch, NumPy nor Keras'


def described_folder(folder: Path) -> str:
    """Returns what a folder is that holds no file of weights; '' if nothing is known of it."""
    if (folder / '.metadata').is_file():
        return 'a distributed checkpoint of PyTorch; torch.distributed.checkpoint.format_utils makes it one file'
    if (folder / 'saved_model.pb').is_file() or (folder / 'checkpoint').is_file():
        return 'a checkpoint of TensorFlow; save the net with Keras (.keras or .weights.h5)'
    return ''
