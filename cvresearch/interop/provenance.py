"""Where weights come from, as far as their files tell."""

import hashlib
import json
from pathlib import Path

import safetensors
import yaml

from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.interop import shards

MOST_BYTES = 2**20  # of a file that is read for its licence


def provenance(path: str | Path) -> dict[str, object]:
    """Returns {'file': name, 'bytes': size, 'sha256': digest} of weights, and 'license' where the files tell.

    The digest of weights in several files is the SHA-256 of the lines of their digests, in the order of their names.
    The licence is looked for in the metadata of a safetensors file, then in the `config.json` beside it, then at the
    head of the `README.md` there, as hubs have them.

    Raises:
      UserError: no such file, or one of several is not there.
    """
    path = local(path, 'the weights file')
    try:
        path = shards.in_folder(path) if path.is_dir() else path
        files = shards.files(path)
        digests = [_digest(file) for file in files]
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path}: {error}') from error
    digest = digests[0] if len(files) == 1 else hashlib.sha256('\n'.join(digests).encode()).hexdigest()
    size = sum(file.stat().st_size for file in files)
    facts: dict[str, object] = {'file': path.name, 'bytes': size, 'sha256': digest}
    license = _of_metadata(files[0]) or _of_config(path.parent) or _of_card(path.parent)
    return facts | ({'license': license} if license else {})


def _digest(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _of_metadata(path: Path) -> str | None:
    if path.suffix.lower() != '.safetensors':
        return None
    try:
        with safetensors.safe_open(path, 'np') as file:
            return (file.metadata() or {}).get('license')
    except safetensors.SafetensorError:
        return None


def _of_config(folder: Path) -> str | None:
    try:
        config = json.loads(_text(folder / 'config.json'))
    except ValueError:
        return None
    groups = (config, config.get('pretrained_cfg')) if isinstance(config, dict) else ()
    return next(
        (
            license_
            for group in groups
            if isinstance(group, dict)
            if isinstance(license_ := group.get('license'), str) and license_
        ),
        None,
    )


def _of_card(folder: Path) -> str | None:
    parts = _text(folder / 'README.md').split('---', 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    head = head if isinstance(head, dict) else {}
    license_ = head.get('license')
    license_ = head.get('license_name', license_) if license_ == 'other' else license_
    return license_ if isinstance(license_, str) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8', errors='replace') if path.stat().st_size <= MOST_BYTES else ''
    except OSError:
        return ''
