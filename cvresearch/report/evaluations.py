"""Released weights that were measured: what `evaluate --weights --out` leaves, ready to be set beside published lines.

They stand apart from runs of our own, which were trained.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.models import registry
from cvresearch.report import runs
from cvresearch.report.published import Line
from cvresearch.report.results import VIEWS

RECORD = 'evaluation.json'
NUMBERS = ('top1', 'top5', 'n_seen', 'resolution')


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The record of an evaluation of released weights on the whole of a test split.

    Attributes:
      path: the folder that holds it.
      record: as it was printed.
    """

    path: Path
    record: dict

    @property
    def model(self) -> str:
        """Our variant."""
        return self.record['model']

    @property
    def views(self) -> str:
        """How an image was looked at: 'single', '10-crop', ..."""
        protocol = str(self.record['protocol'])
        return VIEWS.get(protocol, protocol)

    @property
    def protocol(self) -> str:
        """How the net was evaluated, in a few words."""
        record = self.record
        return f'{record["data"]} {record["split"]}, {record["protocol"]}, {record["resolution"]} pixels'


def split(paths: Sequence[str | Path]) -> tuple[list[str | Path], list[Evaluation]]:
    """Returns the paths that hold no evaluation, and the evaluations of the others.

    What cannot stand in a table (a part of the images, an ensemble, a net without a reference) is named on standard
    error.

    Raises:
      UserError: only evaluations are given, and none can be used.
    """
    holding = [path for path in paths if (local(path) / RECORD).is_file()]
    others = [path for path in paths if path not in holding]
    return others, runs.take(holding, read, least=0 if others or not holding else 1)


def read(path: Path) -> Evaluation:
    """Returns the evaluation in a folder.

    Raises:
      UserError: it is of an ensemble, of a part of the images, of another split, or of a net that is not released.
    """
    record = json.loads((path / RECORD).read_text(encoding='utf-8'))
    if 'members' in record:
        raise UserError(f'{path} is of an ensemble; a table has single nets')
    if 'mAP' in record:
        raise UserError(f'{path} has any number of labels an image, so mAP and no top-1')
    if record['split'] != 'test' or record.get('subset'):
        raise UserError(f'{path} is of a part of the images ({record["split"]}, {record["n_seen"]:,} images)')
    if not record.get('reference') or record.get('kind') == 'compressed':
        raise UserError(f'{path} is of {record["net"]}, which are no released weights as they were published')
    _ = [float(record[name]) for name in NUMBERS], record['digest'][:1], record['model'], record['data']
    return Evaluation(path, record)


def fits(line: Line, evaluation: Evaluation) -> bool:
    """Whether an evaluation may stand in a line: its net, size, data and views are the line's.

    A line that asks for settings of a training has no released weights: how those were trained is not known.
    """
    same = (line.model, line.data, line.views) == (evaluation.model, evaluation.record['data'], evaluation.views)
    return (
        same and not line.where and evaluation.record['resolution'] == registry.variant(evaluation.model).input_shape[0]
    )


def beside(lines: Sequence[Line], evaluations: Sequence[Evaluation]) -> list[tuple[int, Evaluation | None]]:
    """Returns the number of each line with every evaluation that fits it, or once with None.

    Evaluations that fit no line are named on standard error.
    """
    pairs: list[tuple[int, Evaluation | None]] = []
    for number, line in enumerate(lines):
        fitting = [evaluation for evaluation in evaluations if fits(line, evaluation)]
        pairs += [(number, evaluation) for evaluation in fitting] or [(number, None)]
    placed = {evaluation.path for _, evaluation in pairs if evaluation}
    for evaluation in evaluations:
        if evaluation.path not in placed:
            print(
                f'left out: {evaluation.path}, {evaluation.model} on {evaluation.protocol}: no line of the table is '
                'of that net, data, size and views',
                file=sys.stderr,
            )
    return pairs
