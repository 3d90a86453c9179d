"""What the name of a file or folder says: that it is an image, that it is hidden, which split it is."""

import os
import re

# torchvision's nine (jpg, jpeg, png, ppm, bmp, pgm, tif, tiff, webp), and other names of formats that are decoded.
ENDINGS = (
    '.jpg',
    '.jpeg',
    '.png',
    '.gif',
    '.bmp',
    '.webp',
    '.ppm',
    '.tif',
    '.tiff',
    '.pgm',
    '.jfif',
    '.jpe',
    '.pbm',
    '.pnm',
)
# Of macOS' zips, Synology's thumbnails, Windows' and Linux' disks. Whatever begins with a dot is hidden as well.
SYSTEM = ('__MACOSX', '@eaDir', '$RECYCLE.BIN', 'System Volume Information', 'lost+found')
# Of splits.
ROLES = {
    'train': 'train',
    'training': 'train',
    'test': 'test',
    'testing': 'test',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
}
_ENDINGS, _SYSTEM = tuple(map(os.fsencode, ENDINGS)), frozenset(map(os.fsencode, SYSTEM))
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f]')


def printable(name: str | bytes) -> str:
    r"""Returns a name as text that every file and screen takes; bytes that are not UTF-8 are written as '\xe9'."""
    text = os.fsencode(name).decode('utf-8', 'backslashreplace')
    return _CONTROL.sub(lambda match: f'\\x{ord(match[0]):02x}', text)


def hidden(name: bytes) -> bool:
    """Whether an entry of a folder is hidden ('.DS_Store', '._img.jpg') or left behind by a system ('__MACOSX')."""
    return name.startswith(b'.') or name in _SYSTEM


def is_image(name: bytes) -> bool:
    """Whether a file is an image, by its name."""
    return name.lower().endswith(_ENDINGS)
