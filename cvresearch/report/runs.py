"""The runs of a sweep's folder, finished or not, as tables and pictures need them."""

import dataclasses
import json
from pathlib import Path

from cvresearch.base import config as configs
from cvresearch.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Kept:
    """What one run has left so far.

    Attributes:
      name: of its folder.
      config: flat, by dotted key.
      card: run.json; {} before there is one.
      rows: of metrics.jsonl.
    """

    name: str
    config: dict
    card: dict
    rows: list[dict]

    def last(self, split: str, metric: str = 'top1') -> float | None:
        """Returns the last value of a metric, None where the split was not evaluated yet."""
        values = [row[metric] for row in self.rows if row['split'] == split]
        return values[-1] if values else None


def read(path: Path) -> Kept:
    """Returns one run.

    Raises:
      UserError: no run there.
    """
    if not (path / 'config.json').is_file():
        raise UserError(f'{path} holds no run (it has no config.json)')
    metrics = path / 'metrics.jsonl'
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith('\n')]
    card = path / 'run.json'
    config = configs.flatten(configs.from_json((path / 'config.json').read_text()))
    return Kept(path.name, config, json.loads(card.read_text()) if card.exists() else {}, rows)


def of_folder(folder: Path) -> list[Kept]:
    """Returns the runs in a folder.

    Raises:
      UserError: there are none.
    """
    runs = [read(path.parent) for path in sorted(Path(folder).glob('*/config.json'))]
    if not runs:
        raise UserError(f'{folder} has no runs in it; expected the --workdir of a sweep')
    return runs


def differing(runs: list[Kept]) -> list[str]:
    """Returns the keys whose values differ between runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [key for key in keys if len({repr(run.config.get(key)) for run in runs}) > 1]


def by_recipe(runs: list[Kept]) -> dict[str, list[Kept]]:
    """Returns the runs that differ in the seed alone together, named by as few differences as tell them apart."""
    keys = sorted((key for key in differing(runs) if key != 'seed'), key=lambda key: key != 'model.name')
    groups: dict[tuple, list[Kept]] = {}
    for run in runs:
        groups.setdefault(tuple(repr(run.config.get(key)) for key in keys), []).append(run)
    used = next(n for n in range(len(keys) + 1) if len({values[:n] for values in groups}) == len(groups))
    return {_label(keys[:used], group[0].config): group for group in groups.values()}


def _label(keys: list[str], config: dict) -> str:
    words = [str(config.get(key)) if key == 'model.name' else f'{_short(key)}={config.get(key)}' for key in keys]
    return ', '.join(words) or config['model.name']


def _short(key: str) -> str:
    group, _, last = key.rpartition('.')
    return group if last == 'name' else last
