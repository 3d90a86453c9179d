"""Where people watch runs: Weights & Biases, MLflow, or a tracker of a plugin, by name.

A tracker is a class without arguments that has the three methods of `Tracker`. A plugin adds its own with a table
TRACKERS = {'mine': Mine}. It works in a process of its own (tracking.py), so it may be slow, wait, or fail: what raises
is tried again.
"""

import csv
import dataclasses
import importlib.util
import io
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from cvresearch.base import plugins
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.records import read_metrics, scalars

PROJECT = 'cvresearch'  # of Weights & Biases, and MLflow's experiment, where the environment names none
FILES = ('config.json', 'run.json', '*.png', '*.svg', '*.jpg')  # of the workdir that a tracker keeps at the end
TABLE = 'evaluations'
_PARAMS, _METRICS, _CHARACTERS = 100, 1000, 6000  # that MLflow takes at once; of a parameter


@dataclasses.dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run.

    Attributes:
      id: of this run alone, the same in every session.
      name: for people, the workdir's.
      path: the workdir.
      tags: the model, the data, the seed, the revision of the code.
      config: the configuration, by dotted key.
      taken: rows that the tracker has taken of it in earlier sessions.
    """

    id: str
    name: str
    path: Path
    tags: dict[str, str]
    config: dict
    taken: int = 0

    def files(self) -> list[Path]:
        """Returns the files that are worth keeping, those that are there."""
        return [file for pattern in FILES for file in sorted(self.path.glob(pattern))]

    def table(self) -> tuple[list[str], list[list]]:
        """Returns all evaluations as a table: the names of its columns, and its rows."""
        rows = [row for row in read_metrics(self.path / 'metrics.jsonl') if row['split'] != 'train' and 'loss' in row]
        plain = [{key: value for key, value in row.items() if isinstance(value, int | float | str)} for row in rows]
        columns = list(dict.fromkeys(key for row in plain for key in row))
        return columns, [[row.get(column) for column in columns] for row in plain]


class Tracker(Protocol):
    """One session of a run in a tracker. Whatever a method raises, it is called again later with the same."""

    def begin(self, run: Tracked) -> None:
        """Begins a run, or goes on with the one that has this id."""

    def write(self, rows: list[dict]) -> None:
        """Takes rows of metrics.jsonl, by rising steps: 'step', 'epoch', 'split', and values (`records.scalars`)."""

    def end(self, card: dict) -> None:
        """Ends the session with run.json; its 'status' is finished, preempted, failed, or running for a killed one."""


@runtime_checkable
class OfPackage(Protocol):
    """A tracker that needs a package of this name, which may not be installed."""

    package: str


def known() -> dict[str, type[Tracker]]:
    """Returns the trackers by name, with those of the plugins that are loaded."""
    return plugins.merged(TRACKERS, 'TRACKERS')


def check(names: Iterable[str]) -> None:
    """Raises UserError for a name that is no tracker, or one whose package is not installed."""
    for name in names:
        tracker = lookup('tracker', known(), name)
        if isinstance(tracker, OfPackage) and importlib.util.find_spec(tracker.package) is None:
            raise UserError(
                f'--track {name} needs the package {tracker.package}, which is not installed: '
                f'pip install "cvresearch[{name}]"'
            )


class WandB:
    """Weights & Biases, as its own environment variables say: WANDB_PROJECT, WANDB_MODE=offline, WANDB_BASE_URL, ...

    Values stand over a 'step' of ours, since its own may not fall: that one counts rows, so that it refuses a row
    that comes twice, and sessions that were offline follow on each other (`wandb sync --append`).
    """

    package = 'wandb'

    def begin(self, run: Tracked) -> None:
        """Begins a run, or goes on with the one that has this id."""
        import wandb  # pyright: ignore[reportMissingImports]  # an extra

        self._of, self._taken = run, run.taken
        self._run = wandb.init(
            id=run.id,
            resume='allow',
            name=run.name,
            project=os.environ.get('WANDB_PROJECT') or PROJECT,
            dir=os.environ.get('WANDB_DIR') or str(run.path),
            tags=[f'{key}:{value}'[:64] for key, value in run.tags.items()],
            # The console, the code and the load would be of this process, which does not train.
            settings=wandb.Settings(
                console='off', silent=True, save_code=False, disable_git=True, x_disable_stats=True
            ),
        )
        self._run.config.update(run.config, allow_val_change=True)
        self._run.define_metric('step')
        self._run.define_metric('*', step_metric='step')

    def write(self, rows: list[dict]) -> None:
        """Takes rows of metrics.jsonl, each one of the history."""
        for number, row in enumerate(rows, self._taken):
            self._run.log({'step': row['step'], 'epoch': row['epoch'], **scalars(row)}, step=number)
        self._taken += len(rows)

    def end(self, card: dict) -> None:
        """Writes the card and the table of evaluations into the summary, keeps the files, and ends the session."""
        import wandb  # pyright: ignore[reportMissingImports]  # an extra

        columns, rows = self._of.table()
        if rows:
            self._run.summary.update({TABLE: wandb.Table(columns=columns, data=rows)})
        self._run.summary.update({'card': {key: value for key, value in card.items() if key != 'dataset'}})
        for file in self._of.files():
            copy = shutil.copy(file, self._run.dir)
            self._run.save(copy, base_path=self._run.dir, policy='now')
        self._run.finish(exit_code=1 if card.get('status') == 'failed' else 0)


class MLflow:
    """MLflow, as its own environment variables say: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ..."""

    package = 'mlflow'
    _STATUS = {'finished': 'FINISHED', 'failed': 'FAILED'}  # otherwise it may go on

    def begin(self, run: Tracked) -> None:
        """Begins a run, or goes on with the one whose tag has this id."""
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]  # an extra
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]  # an extra

        self._of, self._client = run, MlflowClient()
        experiment = self._experiment(os.environ.get('MLFLOW_EXPERIMENT_NAME') or PROJECT)
        runs = self._client.search_runs([experiment], f"tags.`cvresearch.id` = '{run.id}'", max_results=1)
        tags = {**run.tags, 'cvresearch.id': run.id}
        mine = runs[0] if runs else self._client.create_run(experiment, run_name=run.name, tags=tags)
        self._id = mine.info.run_id
        self._client.update_run(self._id, status='RUNNING')
        config = {key: str(value)[:_CHARACTERS] for key, value in run.config.items()}
        # A parameter cannot be changed: what a resumed run has otherwise becomes a tag.
        for key, value in config.items():
            if mine.data.params.get(key, value) != value:
                self._client.set_tag(self._id, f'config.{key}', value)
        new = [Param(key, value) for key, value in config.items() if key not in mine.data.params]
        for start in range(0, len(new), _PARAMS):
            self._client.log_batch(self._id, params=new[start : start + _PARAMS])

    def write(self, rows: list[dict]) -> None:
        """Takes rows of metrics.jsonl."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]  # an extra

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, row['step']) for row in rows for name, value in scalars(row).items()]
        for start in range(0, len(metrics), _METRICS):
            self._client.log_batch(self._id, metrics=metrics[start : start + _METRICS])

    def end(self, card: dict) -> None:
        """Keeps the files, and the table of evaluations, as artifacts and ends the run."""
        columns, rows = self._of.table()
        table = io.StringIO()
        csv.writer(table).writerows([columns, *rows])
        self._client.log_text(self._id, table.getvalue(), f'{TABLE}.csv')
        for file in self._of.files():
            self._client.log_artifact(self._id, str(file))
        self._client.set_tag(self._id, 'status', card.get('status', ''))
        self._client.set_terminated(self._id, self._STATUS.get(card.get('status', ''), 'KILLED'))

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        return experiment.experiment_id if experiment else self._client.create_experiment(name)


TRACKERS = {'wandb': WandB, 'mlflow': MLflow}
