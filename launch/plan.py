"""From a config's `sweep()` to runs: what each is called, what its command is, and where it stands."""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from cvresearch.base import cli, sweeps, workdir
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError, nearest
from cvresearch.base.overrides import LIST_KEYS, STAND_FOR
from cvresearch.base.paths import local
from cvresearch.base.records import METRICS, judged, metric_of

OWN = '.launch'  # the launcher's folder in the sweep's: logs, locks, scripts
MANIFEST = 'sweep.json'
LONGEST_NAME = 180  # bytes; file systems take 255


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
      name: of its workdir, by what differs: 'peak=0.002,seed=1'.
      folder: of the sweep.
      setting: the config keys that the sweep sets.
      config: resolved.
      flags: of `cvresearch.main`, but for --workdir.
      extend: a run that is there is trained on where it has fewer epochs, also a finished one.
    """

    name: str
    folder: Path
    setting: sweeps.Setting
    config: ConfigDict
    flags: tuple[str, ...]
    extend: bool = False

    @property
    def workdir(self) -> Path:
        """The run's folder."""
        return self.folder / self.name

    @property
    def lock(self) -> Path:
        """The file whose lock says that the run is going on."""
        return self.folder / OWN / f'{self.name}.lock'

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.folder / OWN / f'{self.name}.log'

    def command(self, python: str = sys.executable, root: str | Path | None = None) -> list[str]:
        """Returns the command that trains, or goes on training, this run; `root` is the sweep's folder elsewhere."""
        longer = ['--extend'] if self.is_longer() else []
        return [
            python,
            '-m',
            'cvresearch.main',
            *self.flags,
            '--workdir',
            str(Path(root or self.folder) / self.name),
            *longer,
        ]

    def is_longer(self) -> bool:
        """Whether the run is there with fewer epochs than it is to have."""
        kept = self.extend and (self.workdir / 'config.json').exists()
        return bool(kept) and workdir.kept_config(self.workdir).epochs < self.config.epochs

    def card(self) -> dict | None:
        """Returns the run card, None before there is one.

        Raises:
          UserError: run.json cannot be read.
        """
        path = self.workdir / 'run.json'
        try:
            return json.loads(path.read_text(encoding='utf-8')) if path.exists() else None
        except json.JSONDecodeError as error:
            raise UserError(f'{path} is damaged ({error}); move {self.workdir} away') from error

    def state(self) -> str:
        """Returns 'new', 'running', 'interrupted', 'failed' or 'finished'."""
        if workdir.locked(self.lock) or workdir.in_use(self.workdir):
            return 'running'
        card = self.card()
        if card is None:
            return 'interrupted' if (self.workdir / 'config.json').exists() else 'new'
        if card['status'] == 'finished' and self.is_longer():
            return 'interrupted'
        return card['status'] if card['status'] in ('finished', 'failed') else 'interrupted'

    def rows(self) -> list[dict]:
        """Returns the rows of metrics.jsonl so far; a line that is being written is left out."""
        path = self.workdir / 'metrics.jsonl'
        lines = path.read_text(encoding='utf-8').splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith('\n')]

    def score(self) -> tuple[float, str] | None:
        """Returns the last top-1 or mAP, and its split: the one held out, if any, else the test."""
        for split in ('minival', 'test'):
            if values := [judged(row) for row in self.rows() if row['split'] == split]:
                return values[-1][1], split
        return None

    def metric(self) -> str:
        """Returns the metric that its net is judged by, as a person reads it."""
        return METRICS[metric_of(self.rows())]


def runs_of(
    spec: str,
    overrides: Mapping[str, str | None],
    settings: Sequence[sweeps.Setting],
    folder: str | Path,
    extend: bool = False,
) -> list[SweepRun]:
    """Returns the runs of a sweep; nothing is written.

    Args:
      spec: the experiment file, as --config has it.
      overrides: of every run, as typed.
      settings: of each run.
      folder: of the sweep.
      extend: runs that are there may have fewer epochs, and are trained on.

    Raises:
      UserError: no settings, an unknown key, a value of the wrong type, two runs of one name, a
        workdir that holds something else.
    """
    if not settings:
        raise UserError(f'sweep() of {spec} has no settings')
    folder = local(folder, 'workdir').absolute()
    if (folder / 'config.json').exists():
        raise UserError(f'{folder} is the folder of a run; a sweep needs one of its own: choose another --workdir')
    runs = [make(spec, overrides, setting, name, folder) for name, setting in _named(spec, settings)]
    runs = [dataclasses.replace(run, extend=extend) for run in runs]
    for run in runs:
        workdir.check_config(run.workdir, run.config, extend)
        run.card()
    return runs


def make(spec: str, overrides: Mapping[str, str | None], setting: sweeps.Setting, name: str, folder: Path) -> SweepRun:
    """Returns one run.

    Raises:
      UserError: an unknown key, a value of the wrong type, a key that --config sets too.
    """
    if both := overrides.keys() & setting.keys():
        raise UserError(f'--config.{min(both)} is given, but sweep() sets that key; leave one of them out')
    texts = {key: _text(value) for key, value in setting.items()}
    try:
        config = configs.load(spec, {**overrides, **texts})
    except UserError as error:
        raise UserError(f'sweep, run {name}: {error}') from error
    flat = configs.flatten(config)
    for key, value in setting.items():
        now = configs.RENAMED.get(key, key)
        if key not in STAND_FOR and (now not in flat or _plain(flat[now]) != _plain(value)):
            raise UserError(f'sweep: {key} = {value!r} reads as {flat.get(now)!r}; {nearest(key, flat, see=LIST_KEYS)}')
    flags = cli.override_flags({**overrides, **texts})
    return SweepRun(name, folder, dict(setting), config, ('--config', spec, *flags))


def write_manifest(folder: Path, spec: str, overrides: Mapping[str, str | None], runs: Sequence[SweepRun]) -> None:
    """Writes sweep.json: what the sweep is, for the report."""
    (folder / OWN).mkdir(parents=True, exist_ok=True)
    manifest = {
        'config': spec,
        'overrides': dict(overrides),
        'runs': [{'name': run.name, **run.setting} for run in runs],
    }
    workdir.write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2, default=str) + '\n')


def _named(spec: str, settings: Sequence[sweeps.Setting]) -> Iterator[tuple[str, sweeps.Setting]]:
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    absent = object()
    differ = [key for key in keys if len({_plain_text(s.get(key, absent)) for s in settings}) > 1]
    differ = differ or keys
    short = {key: _shortest(key, differ) for key in differ}
    seen: dict[str, sweeps.Setting] = {}
    for setting in settings:
        words = [f'{short[key]}={_word(setting[key])}' for key in differ if key in setting]
        name = ','.join(words) or Path(configs.parts_of(spec)[0]).stem
        if len(name.encode()) > LONGEST_NAME:
            name = f'{name[: LONGEST_NAME - 20]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}'
        if name in seen:
            raise UserError(f'two runs are named {name!r}: {seen[name]} and {setting}; a sweep has each setting once')
        seen[name] = setting
        yield name, setting


def _shortest(key: str, keys: Sequence[str]) -> str:
    """Returns the shortest end of a dotted key that no other key ends in."""
    parts = key.split('.')
    ends = ('.'.join(parts[-n:]) for n in range(1, len(parts) + 1))
    return next(end for end in ends if sum(f'.{other}'.endswith(f'.{end}') for other in keys) == 1 or end == key)


def _word(value) -> str:
    if isinstance(value, tuple | list):
        return 'x'.join(map(_word, value))
    if isinstance(value, float):
        short = f'{value:g}'
        return short if float(short) == value else repr(value)
    return re.sub(r'[^\w.+-]+', '_', str(value))


def _text(value) -> str:
    return value if isinstance(value, str) else repr(_plain(value))


def _plain_text(value) -> str:
    return repr(_plain(value))


def _plain(value):
    """Returns lists as tuples and NumPy's numbers as Python's."""
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    return value.item() if hasattr(value, 'item') else value
