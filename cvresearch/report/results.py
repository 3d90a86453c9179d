"""What finished runs found, ready to be set beside a published line."""

import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from cvresearch.base import config as configs
from cvresearch.base import plugins
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.report import runs
from cvresearch.report.published import SINGLE, Line


@dataclasses.dataclass(frozen=True)
class Result:
    """One evaluation of one finished run.

    Attributes:
      path: the run's folder, or the record of it.
      config: flat, by dotted key.
      values: 'top1', 'top5' (percent), 'n_seen'.
      split: 'test' or 'minival'.
      views: 'single', '10-crop', ...
      seconds: of the whole run, all sessions together; None where its record does not say.
    """

    path: Path
    config: dict
    data: str
    values: dict
    params: int
    split: str = 'test'
    views: str = SINGLE
    seconds: float | None = None

    @property
    def model(self) -> str:
        """The variant that was trained."""
        return self.config['model.name']

    @property
    def protocol(self) -> str:
        """How the run was evaluated, in a few words."""
        return f'{self.data} {self.split}, {self.views} view{"s" * (self.views != SINGLE)}'

    def recipe(self) -> dict:
        """Returns the configuration without seed and fold, and without what leaves the result as it is."""
        same = ('keep', 'log_every_steps', 'save_every_epochs', 'evaluate_every_epochs', 'eval_batch_size')
        drop = (*runs.REPEATS, *same)
        return {key: value for key, value in self.config.items() if key not in drop}


# How an image is looked at, by the protocol that an evaluation was made by.
VIEWS: dict[str, str] = {
    'as_given': SINGLE,
    'as_published': SINGLE,
    'centre': SINGLE,
    'alexnet_10': '10-crop',
    'resnet_10': '10-crop',
    'googlenet_144': '144-crop',
    'vgg_dense': 'dense',
    'vgg_dense_fixed': 'dense, multi-scale',
    'vgg_dense_jittered': 'dense, multi-scale',
    'resnet_dense': 'dense, multi-scale',
}
EVALUATIONS = 'evaluations.jsonl'  # in a run's folder: what `cvresearch.evaluate` printed, a line each


def read_all(path: str | Path) -> list[Result]:
    """Returns the test result of a finished run, and of its further evaluations on the whole of its test split.

    Evaluations of a part of it, or of other data, are named on standard error and left out.

    Raises:
      UserError: as `read`.
    """
    first, file = read(path), local(path) / EVALUATIONS
    results = {first.views: first}
    for line in file.read_text(encoding='utf-8').splitlines() if file.exists() else ():
        record = json.loads(line)
        protocol = str(record['protocol'])
        views = VIEWS.get(protocol, protocol)
        if record['split'] != 'test' or record['protocol'] == 'as_given' or 'ensemble' in record:
            continue
        if other := _other_images(record, first):
            print(f'left out: an evaluation in {file} ({views}): {other}', file=sys.stderr)
        else:
            results[views] = dataclasses.replace(first, values=record, views=views)
    return list(results.values())


def _other_images(record: dict, reported: Result) -> str:
    """Returns in words which other images than the run's own test split an evaluation is of, '' if it is of these."""
    if data := {record.get('data', reported.data)} - {reported.data}:
        return f'it is of {data.pop()}, and the run of {reported.data}'
    if record.get('subset') or record['n_seen'] != reported.values['n_seen']:
        return f'it is of {record["n_seen"]:,} images, and the test split has {reported.values["n_seen"]:,}'
    return ''


def read(path: str | Path) -> Result:
    """Returns the test result of a finished run.

    Raises:
      UserError: no run there, or one that is not finished or has no test result.
    """
    path = local(path)
    config, card = runs.finished(path)
    plugins.load(config.get('plugins', ()), path)  # the table asks for facts of the net
    if 'test' not in card['final']:
        raise UserError(f'{path} has no test result (it has {", ".join(card["final"]) or "none"})')
    runs.refuse_multi_label(path, card)
    values, views = card['final']['test'], card['final']['test'].get('views', SINGLE)
    _ = [float(values[name]) for name in ('top1', 'top5', 'n_seen')]  # a card without them is damaged
    flat = configs.flatten(config)
    if 'extended_from' in card:
        flat['extended_from'] = card['extended_from']  # no run of the recipe as it is written
    seconds = card.get('wall_time_s')
    return Result(path, flat, card['data'], values, card['params'], views=views, seconds=seconds)


def take(paths: Sequence[str | Path]) -> list[Result]:
    """Returns the results of the finished runs among some paths, each run once; see `runs.take`.

    Raises:
      UserError: none is a finished run.
    """
    return [result for results in runs.take(paths, read_all) for result in results]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The seeds of one line.

    Attributes:
      mean, deviation: by metric, percent; the sample's deviation, None for one seed.
      seeds: how many.
      n_seen: images counted in each evaluation.
    """

    mean: dict[str, float]
    deviation: dict[str, float | None]
    seeds: int
    n_seen: int
    params: int
    protocol: str


def fits(line: Line, result: Result) -> bool:
    """Whether a result may stand in a line: its net, data, views and settings are the line's."""
    return (
        line.model == result.model
        and line.data == result.data
        and line.views == result.views
        and all(result.config.get(key) == value for key, value in line.where.items())
    )


def measured(label: str, results: Sequence[Result]) -> Measured | None:
    """Returns what the seeds of one line found, None where there are none.

    Raises:
      UserError: the runs differ in more than the seed, saw different numbers of images, or two have one seed.
    """
    if not results:
        return None
    first = results[0]
    for other in results[1:]:
        differ = [
            f'{key}: {first.recipe().get(key)} and {other.recipe().get(key)}'
            for key in sorted({*first.recipe(), *other.recipe()})
            if first.recipe().get(key) != other.recipe().get(key)
        ]
        if first.values['n_seen'] != other.values['n_seen']:
            differ.append(f'images counted: {first.values["n_seen"]} and {other.values["n_seen"]}')
        if differ:
            raise UserError(
                f'row {label!r}: {first.path} and {other.path} disagree on the protocol ({"; ".join(differ)}); '
                'a row takes runs that differ in the seed alone: leave one out'
            )
    repeats = [tuple(result.config.get(key) for key in runs.REPEATS) for result in results]
    check_seeds(f'row {label!r}', cast(Any, repeats))
    values = {metric: [result.values[metric] for result in results] for metric in ('top1', 'top5')}
    return Measured(
        {metric: statistics.mean(v) for metric, v in values.items()},
        {metric: statistics.stdev(v) if len(v) > 1 else None for metric, v in values.items()},
        len(results),
        first.values['n_seen'],
        first.params,
        first.protocol,
    )


def check_seeds(what: str, seeds: Sequence[tuple[int, int | None]]) -> None:
    """Raises UserError if two runs of one row have the same seed and fold: they are one run, or a copy of it."""
    if len(set(seeds)) < len(seeds):
        listed = sorted(seed for seed, _ in seeds)
        raise UserError(f'{what}: two runs have the same seed ({listed}); give each run once')


def assign(lines: Sequence[Line], results: Sequence[Result]) -> tuple[list[list[Result]], list[Result]]:
    """Returns the results of each line, and those whose net the table does not have.

    Raises:
      UserError: a run of a net that the table has, in no line's protocol.
    """
    of_lines = [[result for result in results if fits(line, result)] for line in lines]
    placed = {
        result.path for results_of in of_lines for result in results_of
    }  # of several evaluations of a run one is enough
    strangers = []
    for result in results:
        same = [line for line in lines if line.model == result.model]
        if not same:
            strangers.append(result)
        elif result.path not in placed:
            wants = '; '.join(
                dict.fromkeys(
                    f'{line.data}, {line.views}' + ''.join(f', {key}={value}' for key, value in line.where.items())
                    for line in same
                )
            )
            raise UserError(
                f'{result.path} is {result.model} on {result.protocol}, and the table has that net on {wants}: '
                'they disagree on the protocol; leave the run out'
            )
    return of_lines, strangers


def by_recipe(results: Sequence[Result]) -> list[list[Result]]:
    """Returns the results of each recipe, in the order of their seeds."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(json.dumps(result.recipe(), sort_keys=True, default=str), []).append(result)
    return [sorted(group, key=lambda result: result.config['seed']) for group in groups.values()]
