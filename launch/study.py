"""What the studies here share: their runs, a record that grows run by run, and its table."""

import functools
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from ml_collections import ConfigDict

from cvresearch import train
from cvresearch.base import cli
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.paths import local
from cvresearch.base.records import read_card
from cvresearch.base.workdir import write_atomically

Save = Callable[[], None]
Fill = Callable[[dict, Path, SimpleNamespace, Save], None]


def trained(config: ConfigDict, workdir: Path) -> dict:
    """Trains a run to its end, if that was not done; returns its card.

    Raises:
      UserError: the run was stopped before its end.
    """
    if train.run(config, workdir):
        raise UserError(f'{workdir} was stopped; the same command goes on')
    return cast(dict, read_card(workdir))


def spread(values: Sequence[float], digits: int = 2) -> str | None:
    """Returns mean and sample deviation, '93.20 ± 0.15'; of one value itself, of none None."""
    if not values:
        return None
    deviation = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.{digits}f}{deviation}'


def run(
    argv: list[str],
    doc: str,
    out: Path,
    fill: Fill,
    table: Callable[[dict], str],
    choices: Mapping[str, Iterable[str]] | None = None,
    draw: Callable[[dict, Path], None] | None = None,
) -> int:
    """Makes what is missing of a study's record, or prints its table; returns the exit code.

    Args:
      argv: the command line.
      doc: its help.
      out: the record, if --out names no other.
      fill: gets the record, the folder of the runs, the options and what keeps the record; it makes what is missing.
      table: of a record, as Markdown.
      choices: by flag, names; one of them may be chosen.
      draw: draws a record into a file; if None, there is no --picture.

    Raises:
      UserError: neither --workdir nor --table; a record that is not there; a name that is none of its flag's.
    """
    choices = {flag: dict.fromkeys(names) for flag, names in (choices or {}).items()}
    options = cli.parse(
        argv,
        doc,
        required=(),
        places=('workdir', 'out', 'table', *(['picture'] if draw else [])),
        workdir='folder of the runs',
        out=f'the record ({out})',
        table='print the table of this record, and train nothing',
        **({'picture': 'draw the record too, into this file'} if draw else {}),
        **{flag: f'one of {", ".join(names)}; all by default' for flag, names in choices.items()},
    )
    for flag, names in choices.items():
        if value := getattr(options, flag):
            lookup(flag, names, value)
    if not (options.table or options.workdir):
        raise UserError('--workdir is missing: a folder for the runs')
    place = options.table or options.out or out
    if options.table and not place.exists():
        raise UserError(f'--table is {place}, and nothing is there; expected the record of this command')
    record = json.loads(place.read_text(encoding='utf-8')) if place.exists() else {}
    if not options.table:
        fill(record, local(options.workdir), options, functools.partial(_write, place, record))
    print(table(record))
    if draw and options.picture:
        draw(record, options.picture)
    return 0


def _write(place: Path, record: dict) -> None:
    write_atomically(place, json.dumps(record, indent=1) + '\n')
