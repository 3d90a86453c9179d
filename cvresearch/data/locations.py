"""Where datasets lie, and what is said where one does not."""

import os
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import UserError
from cvresearch.base.paths import is_bucket, local
from cvresearch.data.remote import Place, Remote

VARIABLE = 'CVRESEARCH_DATA'


def place(address: str | Path, what: str = 'config.data.root') -> Place:
    """Returns the folder or file that a user means, in a bucket or on this machine.

    Raises:
      UserError: as `Remote.of` and `paths.local`.
    """
    return Remote.of(Bucket.of(str(address), what), what) if is_bucket(address) else local(address, what)


def places(name: str, root: str = '', also: Sequence[str | Path] = ()) -> Sequence[Place]:
    """Returns the folders in which a dataset is looked for.

    Args:
      name: of the dataset, the folder's name where it is not said.
      root: config.data.root; where it is given, nowhere else is looked.
      also: other names of the folder, and folders of this data set alone, such as a Debian package's; looked
        into last.

    Raises:
      UserError: as `place`.
    """
    if root:
        return [place(root)]
    parents = [local(os.environ[VARIABLE], VARIABLE)] if os.environ.get(VARIABLE) else []
    parents += [Path('data'), Path.home() / 'data']
    return list(dict.fromkeys(parent / folder for folder in (name, *also) for parent in parents))


def find(
    name: str, root: str, needed: tuple[tuple[str, ...], ...], how: tuple[str, ...], also: Sequence[str | Path] = ()
) -> Path:
    """Returns the folder of a dataset, on this machine.

    Args:
      name: of the dataset.
      root: config.data.root.
      needed: alternatives, each the entries that a folder must have, as patterns.
      how: lines that say how to put the data there.
      also: as `places` has it.

    Raises:
      UserError: none of the places has one of the alternatives; a folder in a bucket.
    """
    folder = find_anywhere(name, root, needed, how, also)
    if isinstance(folder, Remote):
        raise UserError(
            f'config.data.root is {root!r}, which is not read in place; set config.data.cache to a folder of this '
            'machine that is to hold its copy'
        )
    return folder


def find_anywhere(
    name: str, root: str, needed: tuple[tuple[str, ...], ...], how: tuple[str, ...], also: Sequence[str | Path] = ()
) -> Place:
    """Returns the folder of a dataset, for sources that read it in a bucket too; as `find`."""
    looked = places(name, root, also)
    for folder in looked:
        if any(all(any(folder.glob(entry)) for entry in entries) for entries in needed):
            return folder
    raise missing(name, looked, needed, how)


def missing(
    name: str, places_: Sequence[Place], needed: tuple[tuple[str, ...], ...], how: tuple[str, ...]
) -> UserError:
    """Returns what is said where a dataset is not there, on one screen."""
    looked = [f'    {folder}  ({_state(folder)})' for folder in places_]
    return UserError(
        f'the data of {name!r} is not on this machine',
        details=(
            'It was looked for in',
            *looked,
            'with',
            *(f'    {" and ".join(entries)}' for entries in needed),
            'To put it there:',
            *(f'    {line}' for line in how),
            f'    and set --config.data.root=FOLDER, or the environment variable {VARIABLE} to the folder above it.',
            'What runs now, without it:',
            '    the same command with :smoke after the name of the config file (images made on the spot), and',
            '    python -m cvresearch.main --config configs/lenet5_mnist5k.py --workdir runs/lenet5_mnist5k '
            '(bundled data)',
        ),
    )


def _state(folder: Place) -> str:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return 'no such folder'
    except OSError as error:
        return error.strerror or str(error)
    return f'has {", ".join(names[:5])}{" ..." if len(names) > 5 else ""}' if names else 'is empty'
