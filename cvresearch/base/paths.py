"""What a user writes for a file or a folder, as a path of this machine."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base.errors import UserError

# Of buckets in which runs and data can lie; what they need is in buckets.py.
STAGING = 'CVRESEARCH_STAGING'
SCHEMES = ('gs', 's3', 'az')
ADDRESS = re.compile(rf'({"|".join(SCHEMES)})://(.+)')
SCHEME = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://')
_BUCKETS = re.compile(r'(gs|s3|az|abfss?|file|hdfs|https?):/')  # a Path has made one slash of two


def is_bucket(path: str | Path) -> bool:
    """Whether a text is the address of a folder in a bucket, gs://BUCKET/PATH, s3://BUCKET/PATH or az://CONTAINER/PATH."""
    return isinstance(path, str) and ADDRESS.fullmatch(path) is not None


def local(path: str | Path, what: str = '') -> Path:
    """Returns the path that a user means: `~` and `~user` are home folders; nothing is made or looked for.

    Args:
      path: as typed, or a Path.
      what: takes it, for the message: '--workdir', 'config.data.root'.

    Raises:
      UserError: an address of another machine (gs://, s3://, ...) or of a file (file://); `~` of an unknown user.
    """
    text = os.fspath(path)
    subject = f'{what} is {text!r}' if what else repr(text)
    if (match := SCHEME.match(text) or _BUCKETS.match(text)) is not None:
        hint = (
            f'write {re.sub("^file:/+", "/", text)}'
            if match[1].lower() == 'file'
            else 'this is not done in buckets: name a local folder and copy it afterwards, or mount the bucket; '
            f'runs and data can lie in {"://, ".join(SCHEMES)}://'
        )
        raise UserError(f'{subject}; expected a path on this machine, without {match[1]}:// ({hint})')
    if text.startswith('./'):  # a name that begins with ~ or gs: would lose what protects it
        named = Path(text)
        return named.absolute() if str(named)[:1] == '~' or _BUCKETS.match(str(named)) else named
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        name = Path(text).parts[0]
        raise UserError(f'{subject}, and there is no user {name[1:]!r}; write ./{text} if it is a name') from error


def listed(texts: Sequence[str], what: str, buckets: bool = False) -> list[str | Path]:
    """Returns the paths that a repeatable flag names.

    A comma is a character of a name like any other. For commands of older versions a text is a list of names with
    commas between, where it is no path itself and each of its parts is one. With `buckets` addresses of buckets come as
    they are.

    Raises:
      UserError: as `local`.
    """
    paths_of: list[str | Path] = []
    for text in texts:
        if buckets and is_bucket(text):
            paths_of.append(text)
            continue
        parts = [part for part in text.split(',') if part]
        a_list = len(parts) > 1 and not local(text, what).exists() and all(local(part, what).exists() for part in parts)
        paths_of += [local(part, what) for part in (parts if a_list else [text])]
    return paths_of


def once(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Returns the paths, each place on the disk once, and those that lead to a place a second time."""
    first: dict[str, Path] = {}
    again = [path for path in paths if first.setdefault(os.path.realpath(path), path) is not path]
    return list(first.values()), again


def existing(path: Path) -> Path:
    """Returns a folder, or the nearest above it that exists."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def staging() -> Path:
    """Returns the folder of all that stands for folders in buckets."""
    if place := os.environ.get(STAGING):
        return local(place, STAGING).absolute()
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'cvresearch' / 'buckets'


def meant(path: Path) -> str:
    """Returns the address for which a folder of this machine stands while a run writes it; else the path."""
    try:
        scheme, *parts = path.absolute().relative_to(staging()).parts
    except ValueError:
        return str(path)
    return f'{scheme}://{"/".join(parts)}' if scheme in SCHEMES and parts else str(path)
