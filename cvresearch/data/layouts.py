"""How a person's folder is laid out: which folders are splits, and which are classes."""

import os

from cvresearch.base.errors import UserError
from cvresearch.data import walk
from cvresearch.data.files import Part
from cvresearch.data.names import ROLES, printable
from cvresearch.data.remote import Place
from cvresearch.data.walk import LeftOut

LISTED = 'a CSV list of path and label (config.data.list) says it too'


def of_folder(place: Place, left_out: LeftOut) -> tuple[dict[str, Part], list[str]]:
    """Returns {'train', 'test', 'val': images}, as far as there are any, and lines that say how they were found.

    Args:
      place: the folder.
      left_out: notes what is left out.

    Raises:
      UserError: no folder of images; a folder that may be a class or a split.
    """
    folders = walk.folders_in(place, left_out)
    split_of, notes = _split_folders(place, folders), []
    others = [name for name in folders if name not in split_of.values()]
    classes = [] if 'train' in split_of else others
    for name in others if 'train' in split_of else ():
        left_out.note('folders beside train/', place / name)
    for name in walk.images_in(place, left_out):
        left_out.note('images in no class folder', place / os.fsdecode(name))
    parts = {'train': _part(place, classes, left_out)} if classes else {}
    for role, name in split_of.items():
        parts[role] = _split(place / name, role, left_out, notes)
    parts = {role: part for role, part in parts.items() if part}
    if not parts:
        raise UserError(
            f'{printable(str(place))} has no image in a folder of its class (it has '
            f'{", ".join(map(printable, folders[:5])) or "no folder"}; {_told(left_out)}); expected a folder for each '
            f'class, or train/ and test/ with such folders; {LISTED}'
        )
    if classes and 'train' in parts:
        _check_depth(place, parts['train'])
    return parts, notes


def _told(left_out: LeftOut) -> str:
    return '; '.join(left_out.lines()) or 'nothing else'


def _split_folders(place: Place, folders: list[str]) -> dict[str, str]:
    """Returns {role: folder} of the folders that are splits, going by their names and by what is in them.

    A folder train/ is a split if it holds folders, else it is a class (there are trains on photographs). Beside class
    folders a test/ is a split if it holds folders of the same names.

    Raises:
      UserError: two folders for one role; a folder that may be either.
    """
    folder_of: dict[str, str] = {}
    for name in folders:
        role = ROLES.get(name.lower())
        if role is None:
            continue
        if role in folder_of:
            raise UserError(
                f'{place} has {folder_of[role]}/ and {name}/, which mean the same split; take one of them away'
            )
        folder_of[role] = name
    inside = {role: walk.folders_in(place / name) for role, name in folder_of.items()}
    others = [name for name in folders if name not in folder_of.values()]
    if inside.get('train'):
        return folder_of
    if not others:
        if 'train' in folder_of and walk.images_in(place / folder_of['train']):
            raise UserError(
                f'{place / folder_of["train"]} has images and no folder for each class; expected such folders; {LISTED}'
            )
        folder_of.pop('train', None)
        return folder_of if any(inside.values()) else {}
    splits, classes = {}, {*others, folder_of.get('train')}
    for role, name in folder_of.items():
        if role != 'train' and inside[role] and set(inside[role]) <= classes:
            splits[role] = name
        elif role != 'train':
            raise UserError(
                f'{place / name} lies beside folders of classes ({", ".join(map(printable, others[:3]))}) and may be a '
                f'class or a split: rename it if it is a class; if a split, lay the others into {place / "train"}'
            )
    return splits


def _split(folder: Place, role: str, left_out: LeftOut, notes: list[str]) -> Part | None:
    """Returns the images of a split's folder; None, and a line, where it has none in folders of classes."""
    part = _part(folder, walk.folders_in(folder, left_out), left_out)
    loose = walk.images_in(folder, left_out)
    if part:
        for name in loose:
            left_out.note('images in no class folder', folder / os.fsdecode(name))
    elif role != 'train':
        count = f'{len(loose):,} image{"s" * (len(loose) > 1)}'
        what = f'has {count} without folders of classes' if loose else 'has no images'
        notes.append(f'{folder.name}/ {what}: it is left out (cvresearch.predict takes images without a label)')
    return part


def _part(root: Place, folders: list[str], left_out: LeftOut) -> Part | None:
    """Returns the images of class folders, None where there are none; folders without an image are no classes."""
    folders_kept, names = [], []
    for name in folders:
        if names_inside := walk.images_below(root / name, left_out):
            folders_kept.append(name)
            names.append(names_inside)
        else:
            left_out.note('class folders without an image', root / name)
    if not folders_kept:
        return None
    folder, packed = walk.packed(names)
    return Part(printable(str(root)), root, tuple(folders_kept), folder, packed, folder, tuple(folders_kept))


def _check_depth(place: Place, part: Part) -> None:
    """Raises UserError where the only folder is no class, but the data set within another folder, as zips have it."""
    if len(part.classes) != 1:
        return
    within = {name.partition(b'/')[0] for name in part.names if b'/' in name}
    if len(within) > 1 and not any(b'/' not in name for name in part.names):
        inner = place / part.classes[0]
        shown = ', '.join(printable(name) for name in sorted(within)[:3])
        raise UserError(
            f'{place} has one folder, {printable(part.classes[0])}, which holds folders of images ({shown}): are they '
            f'the classes? Set --config.data.root={printable(str(inner))}'
        )
