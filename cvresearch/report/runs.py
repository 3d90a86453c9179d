"""Runs as tables and pictures need them: which of the folders given are runs, and what each has left."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local, once
from cvresearch.base.records import metric_of, read_card

REPEATS = ('seed', 'data.fold')  # runs that differ in these alone are one setting, told by mean and deviation
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)  # what damaged JSON leads to
MEANS = ('loss', 'top1', 'top5', 'exact_match', 'micro_f1')  # of the images of a row


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What one run has left so far.

    Attributes:
      name: of its folder.
      config: flat, by dotted key.
      card: run.json; {} before there is one.
      rows: of metrics.jsonl.
      whole_config: as the run had it.
    """

    name: str
    config: dict
    card: dict
    rows: list[dict]
    whole_config: ConfigDict

    def last(self, split: str, metric: str = '') -> float | None:
        """Returns the last value of a metric ('': what nets are judged by), None before the split is evaluated."""
        metric = metric or metric_of(self.rows)
        values = [row[metric] for row in self.rows if row['split'] == split and metric in row]
        return values[-1] if values else None

    @property
    def diverged(self) -> bool:
        """Whether all batches of the last logged steps were skipped, since nothing finite came of them."""
        windows = [row.get('n_seen') for row in self.rows if row['split'] == 'train']
        return bool(windows) and windows[-1] == 0


def read(path: Path) -> RunRecord:
    """Returns one run.

    Raises:
      UserError: no run there.
    """
    path = local(path)
    if not (path / 'config.json').is_file():
        raise UserError(f'{path} has no runs in it, and is none itself (it has no config.json)')
    metrics = path / 'metrics.jsonl'
    lines = metrics.read_text(encoding='utf-8').splitlines(keepends=True) if metrics.exists() else []
    rows = [_of_images(json.loads(line)) for line in lines if line.endswith('\n')]
    card = path / 'run.json'
    config = configs.from_json((path / 'config.json').read_text(encoding='utf-8'))
    written = dict(json.loads(card.read_text(encoding='utf-8'))) if card.exists() else {}
    return RunRecord(path.resolve().name, configs.flatten(config), written, rows, config)


def _of_images(row: dict) -> dict:
    """Returns a row without its means where they are of no image: older versions wrote 0.0 for them."""
    return {key: value for key, value in row.items() if key not in MEANS or row.get('n_seen') != 0}


def refuse_multi_label(path: Path, card: dict) -> None:
    """Raises UserError for a run whose images have any number of labels: it has no top-1 to be in a table."""
    if metric_of(card['final'].values()) == 'mAP':
        raise UserError(f'{path} has any number of labels an image, so mAP and no top-1; launch.report shows it')


def finished(path: Path) -> tuple[ConfigDict, dict]:
    """Returns the configuration and the card of a finished run.

    Raises:
      UserError: no run there, or one that is not finished.
    """
    path = local(path)
    card = read_card(path) if (path / 'config.json').is_file() else None
    if card is None or card['status'] != 'finished':
        raise UserError(f'{path} holds no finished run (it is {card["status"] if card else _kind(path)})')
    return configs.from_json((path / 'config.json').read_text(encoding='utf-8')), card


def experiment(folder: Path) -> str:
    """Returns the name of the experiment that a run's folder belongs to: the folder's, without seed and fold.

    'NAME_seed0' is of NAME; 'seed=0,size=28' of 'size=28'; 'seed=0' of the folder above.
    """
    folder = folder.resolve()
    parts = re.sub(r'_seed\d+$', '', folder.name).split(',')
    return ','.join(part for part in parts if not re.fullmatch(r'(seed|fold)=\d+', part)) or folder.parent.name


def _kind(path: Path) -> str:
    if not path.is_dir():
        return 'a file' if path.exists() else 'not there'
    if (path / 'config.json').exists():
        return 'not begun'
    return f'a folder of runs: give {path}/*' if any(path.glob('*/config.json')) else 'no run'


def take(paths: Sequence[str | Path], read: Callable[[Path], object], least: int = 1) -> list:
    """Returns what the runs among some paths hold, each run once; the other paths are named on standard error.

    So `FOLDER/*` may be given, whatever else lies in the folder.

    Args:
      paths: as typed.
      read: returns what a run holds; raises UserError, or what damaged JSON leads to, where a path is no such run.

      least: how many runs there must be.

    Raises:
      UserError: fewer paths are runs; a path of another machine.
    """
    places, again = once([local(path) for path in paths])
    repeated = [f'{path} is given twice, and counts once' for path in again]
    records, why = [], []
    for path in places:
        try:
            records.append(read(path))
        except UserError as error:
            why.append(' '.join(str(error).split()))
        except UNREADABLE as error:
            why.append(f'{path} cannot be read (damaged? {type(error).__name__}: {" ".join(str(error).split())})')
    if len(records) < least:
        raise UserError(why[0] if len(why) == 1 else f'none of the {len(why)} paths can be used', why[1:] and why)
    for text in [*why, *repeated]:
        print(f'left out: {text}', file=sys.stderr)
    return records


def of_folders(paths: Sequence[str | Path]) -> list[RunRecord]:
    """Returns the runs at some paths, finished or not, each once: folders of runs, or of sweeps; see `take`.

    Raises:
      UserError: there are none.
    """
    places = []
    for path in map(local, paths):
        of_sweep = [] if (path / 'config.json').is_file() else sorted(path.glob('*/config.json'))
        places += [file.parent for file in of_sweep] or [path]
    return take(places, read)


def differing(runs: list[RunRecord]) -> list[str]:
    """Returns the keys whose values differ between runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [key for key in keys if len({repr(run.config.get(key)) for run in runs}) > 1]


def by_recipe(runs: list[RunRecord]) -> dict[str, list[RunRecord]]:
    """Returns the runs that differ in seed or fold alone together, named by as few differences as tell them apart."""
    keys = sorted((key for key in differing(runs) if key not in REPEATS), key=lambda key: key != 'model.name')
    groups: dict[tuple, list[RunRecord]] = {}
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
