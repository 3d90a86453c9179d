"""Where datasets lie, and what is said where one does not."""

import os
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.data.remote import Place, check_local, place

VARIABLE = 'CVRESEARCH_DATA'


def places(name: str, root: str = '', also: Sequence[str | Path] = ()) -> Sequence[Place]:
    """Returns the folders in which a dataset is looked for.

    Args:
      name: of the dataset, the folder's name where it is not said.
      root: config.data.root; where it is given, nowhere else is looked.
      also: other names of the folder, and folders of this data set alone, such as a Debian package's; looked
        into last.

    Raises:
      UserError: as `remote.place`.
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
    return check_local(find_anywhere(name, root, needed, how, also), 'config.data.root')


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
