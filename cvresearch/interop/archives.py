"""Opening zip archives that may be hostile: what they unpack to is checked before anything is read."""

import zipfile
from pathlib import Path

# Weights hardly compress. What unpacks to more than this many times its size was made to fill the memory.
MOST_EXPANSION = 100
ALWAYS_ALLOWED = 64 * 2**20


def open_zip(path: str | Path) -> zipfile.ZipFile:
    """Returns the archive at `path`, open for reading.

    Raises:
      ValueError: it unpacks to far more than its own size.
      zipfile.BadZipFile: it is none, or is cut off.
    """
    archive = zipfile.ZipFile(path)
    try:
        require_proportion(sum(entry.file_size for entry in archive.infolist()), Path(path).stat().st_size)
    except ValueError:
        archive.close()
        raise
    return archive


def require_proportion(unpacked: int, packed: int) -> None:
    """Raises ValueError where `packed` bytes claim to hold far more than they can (weights hardly compress)."""
    if unpacked > max(ALWAYS_ALLOWED, MOST_EXPANSION * packed):
        raise ValueError(f'{packed:,} bytes would unpack to {unpacked:,}')
