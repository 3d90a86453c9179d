"""Our runs in a ball chart: beside a published figure only where a table would set them, else marked."""

import functools
import json
import sys
from collections.abc import Callable, Sequence

from cvresearch.base import trees
from cvresearch.inspect import cost
from cvresearch.models import registry
from cvresearch.report.published import SINGLE, Line
from cvresearch.report.results import Result, fits, measured


def family(model: str) -> str:
    """Returns the module of a variant: nets of one family have one colour."""
    return registry.variant(model).module.__module__.rpartition('.')[2]


def balls(lines: Sequence[Line], results: Sequence[Result]) -> list[dict]:
    """Returns the balls of runs, seeds together; `series` says whether they may be compared with the lines.

    Args:
      lines: of a published table; none where runs stand alone.
      results: of the runs.

    Raises:
      UserError: two runs of one ball have the same seed, or saw different numbers of images.
    """
    groups: dict[str, list[Result]] = {}
    placed = {result.path for result in results for line in lines if fits(line, result)}
    for result in results:
        wanted = any(fits(line, result) for line in lines) if result.path in placed else result.views == SINGLE
        if wanted:
            key = json.dumps([result.protocol, result.recipe()], sort_keys=True, default=str)
            groups.setdefault(key, []).append(result)
    several = len({result.data for group in groups.values() for result in group}) > 1
    return [_ball(group, _series(lines, group[0], several)) for group in groups.values()]


def _series(lines: Sequence[Line], result: Result, several: bool) -> str:
    if not lines:
        return f'ours, {result.data}' if several else ''
    if any(fits(line, result) for line in lines):
        return 'ours'
    if result.data not in {line.data for line in lines}:
        return f'ours, other data: {result.data}'
    known = any(line.model == result.model for line in lines)
    return 'ours, other protocol' if known or result.views not in {line.views for line in lines} else 'ours, other net'


def _ball(group: Sequence[Result], series: str) -> dict:
    first = group[0]
    values = measured(first.model, group)
    assert values is not None  # of one result at least
    return {
        'name': first.model,
        'model': first.model,
        'family': family(first.model),
        'top1': values.mean['top1'],
        'params': first.params,
        'macs': macs(first),
        'series': series,
    }


def macs(result: Result) -> int | None:
    """Returns the multiply-adds of the net that was trained, which may have other arguments than the variant."""
    variant = registry.variant(result.model)
    size = result.values.get('resolution', variant.input_shape[0])
    arguments = {
        key.removeprefix('model.'): value
        for key, value in result.config.items()
        if key.startswith('model.') and key not in ('model.name', 'model.num_classes')
    }
    if (result.params, size) == (variant.params, variant.input_shape[0]) and not arguments:
        return variant.macs
    build = functools.partial(registry.build, result.model, **arguments)
    fitting = [(c, classes) for c in (1, 3) if (classes := _classes(build, (size, size, c), result.params))]
    if len(fitting) != 1:
        print(
            f'left out: {result.path}: its multiply-adds are not known, since {result.params:,} parameters do not '
            'say its channels and classes',
            file=sys.stderr,
        )
        return None
    ((channels, classes),) = fitting
    return cost.macs(build(classes), (size, size, channels))


def _classes(build: Callable, shape: tuple[int, int, int], params: int) -> int | None:
    """Returns how many classes give a net so many parameters: they grow by the same with each class; None if none do.

    A run's card does not say its classes or channels.
    """
    two, three = (trees.count(cost.shapes(build(classes), shape)['params']) for classes in (2, 3))
    more, rest = divmod(params - two, three - two)
    return None if rest or more < 0 else 2 + more
