"""Nets and datasets from outside the package: modules that a configuration names in `plugins`.

A plugin is an import path ('my_lab.nets') or a file ('lab/nets.py'). It has the tables that the package's own modules
have: VARIANTS and REFERENCES (models/registry.py), SOURCES (data/sources.py), TRACKERS (base/trackers.py). A plugin is
code, and runs with all that the user may do.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from cvresearch.base import paths
from cvresearch.base.errors import UserError

TABLES = ('VARIANTS', 'REFERENCES', 'SOURCES', 'TRACKERS')
_LOADED: dict[str, ModuleType] = {}


def resolved(names: str | Iterable[str]) -> tuple[str, ...]:
    """Returns plugins as a configuration keeps them: files by their absolute paths, import paths as they are.

    Raises:
      UserError: a name that is no text, or a path of another machine.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if not isinstance(name, str) or not name:
            raise UserError(f'config.plugins has {name!r}; expected import paths (my_lab.nets) or .py files')
    return tuple(str(paths.local(n, 'config.plugins').absolute()) if _is_file(n) else n for n in names)


def load(names: Iterable[str], run: Path | None = None, recorded: Sequence[Mapping] = ()) -> None:
    """Imports plugins, each once in a process; their nets and datasets are found by name from then on.

    Args:
      names: as `resolved` returns them.
      run: the workdir whose config.json names them, if one does: a run is not to bring its own code.
      recorded: what that run recorded of them (`records`), for messages.

    Raises:
      UserError: a plugin is not there, cannot be imported, lies in the run's folder, or has no table.
    """
    for name in names:
        if name in _LOADED:
            continue
        was = next((f' (the run had it from {row["file"]})' for row in recorded if row['name'] == name), '')
        file = _found(name, was)
        if run is not None and Path(file).resolve().is_relative_to(Path(run).resolve()):
            raise UserError(f'config.plugins: {file} lies in the folder of the run, which is data; move the file out')
        _LOADED[name] = _imported(name, file, was)


def table(name: str) -> dict:
    """Returns the entries of one table of all loaded plugins.

    Raises:
      UserError: two plugins have an entry of one name.
    """
    entries: dict = {}
    for plugin, module in _LOADED.items():
        for key, entry in getattr(module, name, {}).items():
            if key in entries and entries[key] is not entry:
                raise UserError(f'config.plugins: {key!r} in {name} of {plugin} is in another plugin too; rename one')
            entries[key] = entry
    return entries


def merged(entries: Mapping, name: str) -> dict:
    """Returns a table of the package with the entries of the loaded plugins.

    Raises:
      UserError: a plugin has an entry of a name that the package or another plugin has.
    """
    more = table(name)
    if both := entries.keys() & more.keys():
        raise UserError(f'config.plugins: {min(both)!r} in {name} is a name of the package; give yours another')
    return {**entries, **more}


def loaded() -> tuple[str, ...]:
    """Returns the names of the plugins that are loaded."""
    return tuple(_LOADED)


def records(names: Iterable[str]) -> list[dict]:
    """Returns {'name', 'file', 'sha256'} of loaded plugins; the digest is of the file alone, not of what it imports."""
    rows = []
    for name in names:
        file = _LOADED[name].__file__
        rows.append({'name': name, 'file': file, 'sha256': hashlib.sha256(Path(str(file)).read_bytes()).hexdigest()})
    return rows


def changes(recorded: Sequence[Mapping], now: Sequence[Mapping]) -> list[str]:
    """Returns a line for each plugin whose file is not the one that was recorded."""
    before = {row['name']: row['sha256'] for row in recorded}
    return [
        f'the plugin {row["name"]} has changed since the run began (sha256 {before[row["name"]][:12]}, now '
        f'{row["sha256"][:12]}): what it makes may be another net or other data'
        for row in now
        if before.get(row['name'], row['sha256']) != row['sha256']
    ]


def _is_file(name: str) -> bool:
    return name.endswith('.py') or os.sep in name


def _found(name: str, was: str) -> str:
    """Returns the file of a plugin; the module itself is not run."""
    if _is_file(name):
        if not Path(name).is_file():
            raise UserError(f'config.plugins: there is no file {name}{was}; set --config.plugins to where it is')
        return name
    if os.getcwd() not in sys.path:  # a console command's path has not the folder it is called in
        sys.path.append(os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # of a package that is not there, or a name that is none
        spec = None
    if spec is None or not spec.origin:
        raise UserError(
            f'config.plugins: there is no module {name!r}{was}; set PYTHONPATH to the folder that holds '
            f'{name.partition(".")[0]}, or name its file: --config.plugins=FOLDER/{name.rpartition(".")[2]}.py'
        )
    return spec.origin


def _imported(name: str, file: str, was: str) -> ModuleType:
    try:
        if _is_file(name):
            label = f'_plugin_{hashlib.sha256(file.encode()).hexdigest()[:12]}'
            spec = importlib.util.spec_from_file_location(label, file)
            if spec is None or spec.loader is None:
                raise ImportError('expected a file that ends in .py')
            module = sys.modules[label] = importlib.util.module_from_spec(spec)  # dataclasses look there
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(name)
    except Exception as error:  # whatever a person's own code raises
        raise UserError(
            f'config.plugins: {name} cannot be imported{was}: {type(error).__name__}: '
            f'{" ".join(str(error).split())} (python -X dev shows where)'
        ) from error
    if not any(hasattr(module, table) for table in TABLES):
        raise UserError(f'config.plugins: {name} registers nothing; expected one of the tables {", ".join(TABLES)}')
    return module
