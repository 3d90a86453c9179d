"""A study as one table: cvresearch report study --config FILE DIR... [--format text|markdown|csv|latex|html].

One row for each setting of the experiment file's `sweep()`, in its order, whether or not it has run: what the last
training batches gave, the test, mean over the seeds and its 95 % interval (Student). A setting without a run has
dashes, and `seeds` says how many of how many are there. `cvresearch report plots study` draws the same.
"""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from cvresearch.base import cli, sweeps, tables
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.report import runs as taking
from cvresearch.report.runs import RunRecord

COLUMNS = (
    'setting', 'seeds', 'images to train', 'epochs', 'training loss', 'training top-1', 'test top-1 of each (%)',
    'mean', '95 % interval', 'n_seen',
)  # fmt: skip
# Keys in which all runs of a study agree, but for what its sweep sets.
RECIPE = ('epochs', 'batch_size', 'data', 'model', 'optimizer', 'schedule', 'loss', 'augment', 'mixing', 'minival')


@dataclasses.dataclass(frozen=True)
class Group:
    """One setting and its runs.

    Attributes:
      name: what tells it from the others; 'as it is' where it changes nothing.
      seeds: how many the sweep has.
      runs: those that are finished, in the order of their seeds.
    """

    name: str
    seeds: int
    runs: tuple[RunRecord, ...]

    @property
    def tests(self) -> list[float]:
        """Top-1 on the test images at the end, percent, of each run."""
        return [run.card['final']['test']['top1'] for run in self.runs]

    def training(self, metric: str) -> float | None:
        """Returns the mean of a metric over the last training batches that were logged; None if no run learns."""
        learning = [run for run in self.runs if not run.diverged]
        values = [value for run in learning if (value := run.last('train', metric)) is not None]
        return statistics.mean(values) if values else None

    def interval(self) -> float | None:
        """Returns half the 95 % interval of the mean of `tests`, Student; None of fewer than two."""
        if len(self.tests) < 2:
            return None
        return float(stats.t.ppf(0.975, len(self.tests) - 1)) * statistics.stdev(self.tests) / len(self.tests) ** 0.5


def groups(spec: str, folders: Sequence[str | Path]) -> list[Group]:
    """Returns the settings of a sweep with their runs.

    Args:
      spec: the experiment file, as --config has it.
      folders: of runs; what is no finished run, or is of none of the settings, is named on standard error.

    Raises:
      UserError: the file has no such sweep; no folder is a finished run of it.
    """
    wanted = configs.sweep_of(spec)
    if isinstance(wanted, sweeps.Search):
        raise UserError(f'{spec} is a search, and a study has settings; see launch.report')
    settings = [dict(setting) for setting in wanted]
    base = configs.flatten(configs.load(spec))
    keys = list(dict.fromkeys(key for setting in settings for key in setting if key != 'seed'))
    same = [key for key in base if key not in keys and key.partition('.')[0] in RECIPE]

    def identity(config: dict, setting: dict) -> str:
        return _plain([setting.get(key, config.get(key)) for key in keys])

    by_setting: dict[str, list[dict]] = {}
    for setting in settings:
        by_setting.setdefault(identity(base, setting), []).append(setting)
    by_place: dict[str, list[RunRecord]] = {}

    def read(path: Path) -> None:
        taking.finished(path)
        run = taking.read(path)
        other = [key for key in same if _plain(run.config.get(key)) != _plain(base[key])]
        place = identity(run.config, {})
        if other or place not in by_setting:
            raise UserError(f'{path} is no run of {spec}' + f' (it differs in {", ".join(other[:3])})' * bool(other))
        by_place.setdefault(place, []).append(run)

    if folders:
        taking.take(folders, read)
    names = _names([settings[0] for settings in by_setting.values()], keys)
    return [
        Group(name, len(settings), tuple(sorted(by_place.get(place, []), key=lambda run: run.config['seed'])))
        for name, (place, settings) in zip(names, by_setting.items(), strict=True)
    ]


def _plain(value) -> str:
    return json.dumps(value, default=str)  # lists as tuples, which JSON does not tell apart


def _names(settings: list[dict], keys: list[str]) -> list[str]:
    """Returns a name for each setting, by as few of the first keys as tell them apart."""

    def name(setting: dict, used: list[str]) -> str:
        words = [f'{_short(key)} {_word(setting[key])}' for key in used if key in setting]
        return ', '.join(words) or 'as it is'

    for count in range(1, len(keys) + 1):
        names = [name(setting, keys[:count]) for setting in settings]
        if len(set(names)) == len(names):
            return names
    return [name(setting, keys) for setting in settings]


def _word(value) -> str:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return f'{value:g}' if isinstance(value, float) else str(value)


def _short(key: str) -> str:
    group, _, last = key.rpartition('.')
    return group if last == 'name' else last


def rows(settings: Sequence[Group]) -> list[dict]:
    """Returns the table."""
    table = []
    for group in settings:
        card = group.runs[0] if group.runs else None
        loss, top1, half = group.training('loss'), group.training('top1'), group.interval()
        table.append(
            {
                'setting': group.name,
                'seeds': f'{len(group.runs)} of {group.seeds}',
                'images to train': card.config.get('data.train') if card else None,
                'epochs': f'{card.config["epochs"]:g}' if card else None,
                'training loss': _loss(group, loss),
                'training top-1': None if top1 is None else f'{top1:.2f}',
                'test top-1 of each (%)': ', '.join(f'{value:.2f}' for value in group.tests) or None,
                'mean': f'{statistics.mean(group.tests):.2f}' if group.runs else None,
                '95 % interval': None if half is None else f'± {half:.2f}',
                'n_seen': card.card['final']['test']['n_seen'] if card else None,
            }
        )
    return table


def _loss(group: Group, mean: float | None) -> str | None:
    """Returns the mean training loss, and how many runs have none, since they diverged."""
    diverged = sum(run.diverged for run in group.runs)
    words = [*([f'{mean:.3f}'] if mean is not None else []), *([f'{diverged} diverged'] if diverged else [])]
    return ', '.join(words) or None


def main(argv: list[str]) -> int:
    """Prints the table; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('config',),
        positional='folders of finished runs',
        config='experiment file with a sweep()',
        format='text (default), markdown, csv, latex or html',
    )
    settings = groups(options.config, options.rest)
    print(tables.render(rows(settings), COLUMNS, options.format or 'text'))
    return 0
