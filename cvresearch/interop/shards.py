"""Weights in several files, with an index that says which tensor lies in which, as the libraries of hubs write them."""

import json
import re
from pathlib import Path

from cvresearch.base.errors import UserError
from cvresearch.interop import foreign

INDEXES = ('model.safetensors.index.json', 'pytorch_model.bin.index.json')
# What a folder of a hub holds of one file, the likeliest first.
SINGLE = ('model.safetensors', 'pytorch_model.bin')
_NUMBERED = re.compile(r'(.+)-(\d{5})-of-(\d{5})(\.\w+)')
_OF_KERAS = re.compile(r'(.+)_\d{5}\.weights\.h5')
MOST_BYTES = 64 * 2**20


def in_folder(folder: Path) -> Path:
    """Returns the file of weights in a folder, or the index of several.

    Raises:
      UserError: none or more than one that could be meant.
    """
    files = [folder / name for name in (*SINGLE, *INDEXES) if (folder / name).is_file()]
    for pattern in ('*.index.json', '*.weights.json', '*.safetensors'):
        files = files or sorted(folder.glob(pattern))
    if not files and (what := foreign.described_folder(folder)):
        raise UserError(f'{folder} is {what}')
    if not files:
        raise UserError(f'{folder} is a folder without {", ".join((*SINGLE, *INDEXES))}; name a file of weights')
    if len(files) > 1 and files[0].name not in (*SINGLE, *INDEXES):
        raise UserError(f'{folder} holds several files of weights ({files[0].name}, {files[1].name}, ...); name one')
    return files[0]


def is_index(path: Path) -> bool:
    """Whether a file is an index: it is JSON, whatever its name."""
    with open(path, 'rb') as file:
        return file.read(512).lstrip().startswith(b'{')


def names(index: Path) -> dict[str, str]:
    """Returns {tensor: name of the file beside the index that it lies in}.

    Keras has {layer: names of files}; its layers come as 'layer 0', 'layer 1', ... of each file.

    Raises:
      ValueError: no such index, or it names a file of another folder.
    """
    # Before it is read: an index is small, and by its name a file may be anything.
    if index.stat().st_size > MOST_BYTES:
        raise ValueError(f'{index.name} has more than {MOST_BYTES:,} bytes')
    data = index.read_bytes()
    content = json.loads(data)
    files_of = content.get('weight_map') if isinstance(content, dict) else None
    if isinstance(files_of, dict) and any(isinstance(name, list) for name in files_of.values()):
        files_of = {
            f'{layer} {number}': name for layer, several in files_of.items() for number, name in enumerate(several)
        }
    if not isinstance(files_of, dict) or not files_of or not all(isinstance(name, str) for name in files_of.values()):
        start = data[:60].decode(errors='replace')
        raise ValueError(f"it has no 'weight_map' of tensors to files; it begins with {start!r}")
    for name in set(files_of.values()):
        if not name or name != Path(name).name or '\\' in name:
            raise ValueError(f'it names {name!r}; expected files of its own folder')
    return files_of


def files(path: Path) -> list[Path]:
    """Returns all files that hold the weights of `path`: an index, one of numbered shards, or a file alone.

    Raises:
      ValueError: not an index, or files that are not there.
    """
    keras = _OF_KERAS.fullmatch(path.name)
    if keras and (index := path.with_name(f'{keras[1]}.weights.json')).is_file():
        path = index
    if is_index(path):
        paths = [path.with_name(name) for name in sorted(set(names(path).values()))]
    elif match := _NUMBERED.fullmatch(path.name):
        stem, _, count, ending = match.groups()
        paths = [path.with_name(f'{stem}-{number:05}-of-{count}{ending}') for number in range(1, int(count) + 1)]
    else:
        return [path]
    missing = [file.name for file in paths if not file.is_file()]
    if missing:
        more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
        raise ValueError(f'its weights lie in {len(paths)} files, and {missing[0]}{more} is not there')
    return paths
