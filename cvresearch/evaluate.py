"""Evaluates a run, or any net on any data, by any protocol.

    cvresearch evaluate --workdir DIR [--split test] [--protocol NAME] [--ensemble KIND]
    cvresearch evaluate --weights NAME --data SOURCE [--root DIR] [--protocol NAME] [--out DIR]

Prints one line of JSON that states the protocol. Of a run the predictions are kept in DIR/predictions, from which
`cvresearch evaluate score` makes further metrics. Every image of the split counts exactly once, at any batch size;
with --limit N or --every K it is a part of them, spread evenly over the classes, and the record says so (`subset`).

NAME is run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k or a path; the images are prepared as the net
was published with, unless a protocol says otherwise. Several --weights are an ensemble of their probabilities. With
--out the record (evaluation.json) and the predictions are kept there, and `cvresearch report tables` takes the folder.

    --ensemble snapshots   the mean of the probabilities of the last m snapshots, m = 1 to M
    --ensemble runs        of the newest checkpoints of --workdir and of the DIRs after the flags, of any architecture
    --ensemble weights     one net, whose weights are the mean of the snapshots' (SWA), or of the runs' (a soup)

An ensemble is set beside runs of the same cost: --control DIR --control DIR. Of the DIRs what is no finished run is
named on standard error and left out, and a run that is given twice counts once.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import cast

from cvresearch.base import at_hand, cli
from cvresearch.base.errors import BAD_INPUT, UserError, lookup
from cvresearch.base.paths import local
from cvresearch.base.records import read_card
from cvresearch.engine import datasets
from cvresearch.evaluation import ensemble, ensemble_text, measure, predictions
from cvresearch.evaluation.predictions import KEPT, Predictions
from cvresearch.evaluation.runs import Run
from cvresearch.objectives import significance
from cvresearch.report import runs as taking


@dataclasses.dataclass(frozen=True)
class How:
    """What is evaluated, and how.

    Attributes:
      split: 'test', 'train', or 'minival' where the run holds one out.
      batch_size: images a step; the configuration's by default.
      data: another source to evaluate on, such as 'imagenet_a'; the run's own by default.
      root: of that source.
      protocol: in `evaluation/protocols.py`; 'as_given': the source's own.
      resolution: side of the net's input; of training by default.
      scales: shorter sides before cropping; the protocol's by default.
      interpolation: of resizing; the protocol's by default.
      average: of views, 'probabilities' or 'logits'; the paper's by default.
      weights: 'raw' or the average that the run keeps ('ema', 'swa'); what it was evaluated with, by default.
      stacked: members in one pass or one after another; in one where they fit, by default.
      keep: whether predictions are written into the workdir.
      limit: at most so many images of the split, spread evenly over it; 0 for no limit.
      every: one image in so many of the split.
    """

    split: str = 'test'
    batch_size: int | None = None
    data: str | None = None
    root: str | None = None
    protocol: str = 'as_given'
    resolution: int | None = None
    scales: tuple[int, ...] = ()
    interpolation: str | None = None
    average: str | None = None
    weights: str | None = None
    stacked: bool | None = None
    keep: bool = False
    limit: int = 0
    every: int = 1

    def run(self, workdir: str | Path, force: bool = False) -> Run:
        """Returns a run, with the images that it is evaluated on, compared with what the run knows of its data.

        Args:
          workdir: of the run.
          force: evaluate held-out images though they have changed.

        Raises:
          UserError: no run; data with classes that the net does not know; changed images of 'minival'.
        """
        if self.root and not self.data:
            raise UserError('--root is of --data; give both')
        run = Run.open(workdir, images=not self.data)
        if self.data:
            run = run.on(self.data, **self._arguments(run))
        else:
            run.check_data(self.split, force)
        return run.part(self.split, self.limit, self.every)

    def _arguments(self, run: Run) -> dict:
        """Returns the arguments of the other source."""
        arguments = {key: value for key, value in run.config.data.items() if key != 'name'}
        roots = [Path(root).expanduser().resolve() for root in (self.root, arguments.get('root')) if root]
        if self.data == run.config.data.name and len(roots) == 2 and roots[0] == roots[1]:
            return arguments  # the folder of its training: not a test image more than there was
        # Any other folder without train/ is one of test images alone.
        defaults = {'every': 1} if self.data == 'image_folder' else {}
        return defaults | ({'root': str(self.root)} if self.root else {})

    def of(self, run: Run):
        """Returns the protocol for a run."""
        return run.protocol(
            self.split,
            self.protocol,
            self.resolution,
            scales=self.scales,
            interpolation=self.interpolation,
            average=self.average,
        )


def run(
    workdir: str | Path,
    split: str = 'test',
    batch_size: int | None = None,
    step: int | str | None = None,
    select_by: str = 'minival',
    force: bool = False,
    **how,
) -> dict:
    """Returns the record of an evaluation of one checkpoint: step, protocol, metrics, `n_seen`.

    Args:
      workdir: of the run.
      split: see `How`; batch_size, likewise.
      step: of the checkpoint, or 'best'; the newest by default.
      select_by: the split that decides which is best.
      force: choose by the split that is reported all the same; the record says so.
      **how: further fields of `How`.

    Raises:
      UserError: no run, no such checkpoint, split or protocol; a choice by the reported split.
    """
    how = How(split, batch_size, **how)
    trained, chosen, at = how.run(workdir, force), {}, cast(int | None, step)
    if step == 'best':
        at = trained.best_step(select_by, split, force)
        chosen = {'selected_by': select_by, 'selected_on_reported_split': select_by == split}
    (answers,) = trained.predictions([trained.checkpoint(at)], split, how.of(trained), batch_size, weights=how.weights)
    answers = dataclasses.replace(answers, record=answers.record | chosen)
    _keep(trained, answers, how)
    return trained.metrics(answers)


def run_ensemble(
    workdir: str | Path,
    kind: str,
    others: tuple[str | Path, ...] = (),
    controls: tuple[str | Path, ...] = (),
    how: How | None = None,
) -> dict:
    """Returns the record of an ensemble.

    Args:
      workdir: of the first run, or of the one whose snapshots are meant; predictions are kept there.
      kind: 'snapshots', 'runs' or 'weights'.
      others: further workdirs.
      controls: workdirs of runs that are set beside it; of the same cost, or the record says that they are not.
      how: see `How`.

    Returns:
      The record of the whole ensemble; for an ensemble of probabilities also `curve` (m = 1 to M), `members`, their
      `disagreement` and `correlation`; `controls`, each with McNemar's test against the ensemble.

    Raises:
      UserError: see `run`; no snapshots, or nets of other images or classes.
    """
    how = how or How()
    first, *_ = runs = [how.run(member_run) for member_run in (workdir, *others)]
    averaged, more = lookup('ensemble', KINDS, kind)(runs, how)
    _keep(first, averaged, how, kind)
    cost = sum(_images(member_run.path) for member_run in runs)
    beside = [_control(how.run(control), averaged, how, cost) for control in controls]
    return {'ensemble': kind, 'images_trained_on': cost, **first.metrics(averaged), **more, 'controls': beside}


def _of_probabilities(owners: list[Run], members: list[Predictions], name: str) -> tuple[Predictions, dict]:
    members = ensemble.aligned(members)
    first = members[0].record
    averaged = ensemble.average(
        members,
        run=first['run'],
        split=first['split'],
        weights=name,
        steps=[m.record['step'] for m in members],
        **{key: value for key, value in first.items() if key not in ('run', 'split', 'weights', 'step', 'crops')},
        crops=first['crops'] * len(members),
    )
    return averaged, {
        'curve': ensemble.curve(members),
        'members': [owner.metrics(member) for owner, member in zip(owners, members, strict=True)],
        'disagreement': ensemble.disagreement(members).round(6).tolist(),
        'correlation': ensemble.correlation(members).round(6).tolist(),
    }


def _snapshots(runs: list[Run], how: How) -> tuple[Predictions, dict]:
    (one,) = _only_one(runs)
    members = one.predictions(one.snapshots(), how.split, how.of(one), how.batch_size, how.stacked, how.weights)
    return _of_probabilities([one] * len(members), members, 'snapshots')


def _runs(runs: list[Run], how: How) -> tuple[Predictions, dict]:
    members = [_last(run, how) for run in runs]
    return _of_probabilities(runs, members, 'runs')


def _last(run: Run, how: How) -> Predictions:
    return run.predictions([run.checkpoint()], how.split, how.of(run), how.batch_size, weights=how.weights)[0]


def _weights(runs: list[Run], how: How) -> tuple[Predictions, dict]:
    for other in runs[1:]:
        first, names = (run.experiment.source.facts.class_names for run in (runs[0], other))
        datasets.check_same_order(first, names, other.path)
    states = runs[0].snapshots() if len(runs) == 1 else [run.checkpoint() for run in runs]
    return runs[0].averaged(states, how.split, how.of(runs[0]), how.batch_size), {}


KINDS = {'snapshots': _snapshots, 'runs': _runs, 'weights': _weights}


def _only_one(runs: list[Run]) -> list[Run]:
    if len(runs) > 1:
        raise UserError('--ensemble=snapshots is of one run; give one --workdir')
    return runs


def _control(run: Run, averaged: Predictions, how: How, cost: int) -> dict:
    """Returns the record of a control: its last checkpoint, and the ensemble of its snapshots if it has any."""
    last = _last(run, how)
    predictions.check_same_images(averaged, last)
    _keep(run, last, how)
    row = {'control': str(run.path), 'same_cost': _images(run.path) == cost, 'images_trained_on': _images(run.path)}
    row |= run.metrics(last) | {'mcnemar': significance.mcnemar(averaged.right, last.right)}
    if run.experiment.snapshots:
        snapshots, more = _snapshots([run], how)
        _keep(run, snapshots, how, 'snapshots')
        row['snapshots'] = (
            run.metrics(snapshots) | {'mcnemar': significance.mcnemar(averaged.right, snapshots.right)} | more
        )
    return row


def _images(path: Path) -> int:
    """Returns how many images a run has trained on so far: the cost that is matched."""
    card = read_card(path)
    return card.get('images_seen', 0) if card else 0


def _finished(path: Path) -> Path:
    taking.finished(path)
    return path


def _between_commas(path: Path) -> list[Path]:
    """Returns the runs of --control=A,B, as they were given before the flag could be repeated, or the one path."""
    parts = [Path(part) for part in str(path).split(',')]
    return parts if not path.exists() and all(part.is_dir() for part in parts) else [path]


def _others(workdir: Path, rest: list[str]) -> tuple[Path, ...]:
    """Returns the further runs of an ensemble: `rest` without the first run, if FOLDER/* holds it too."""
    first = workdir.resolve()
    others = [path for path in map(local, rest) if path.resolve() != first]
    if len(others) < len(rest):
        print(f'left out: {workdir} is given twice, and counts once', file=sys.stderr)
    return tuple(taking.take(others, _finished, least=0))


def _keep(run: Run, answers: Predictions, how: How, kind: str | None = None) -> None:
    if how.keep:
        protocol = None if how.protocol == 'as_given' else how.protocol
        subset = ''.join(f'{key}{value}' for key, value in answers.record.get('subset', {}).items() if key != 'of')
        parts = [how.data, how.split, subset, protocol, kind or f'step{answers.record["step"]}']
        answers.save(run.path / KEPT / f'{"_".join(part for part in parts if part)}.npz')


def _print_each(weights: list[str], how: How, view: measure.View, out: Path | None, part: dict) -> int:
    """Prints the record of each net in a list; one that cannot be evaluated is an error line, and the code is 2."""
    if len(weights) > 1:
        raise UserError('--weights @FILE is one list of nets; give no other --weights beside it')
    code = 0
    for record in measure.run_each(weights[0][1:], how.data, how.root, view, out, **part):
        if isinstance(record, UserError):
            print(f'error: {" ".join(str(record).split())}', file=sys.stderr)
            code = BAD_INPUT
        else:
            print(json.dumps(record), flush=True)
    return code


def main(argv: list[str]) -> int:
    """Prints the metrics; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='further workdirs of an ensemble',
        places=('workdir', 'root', 'control', 'out'),
        buckets=('workdir',),
        repeated=('control', 'weights'),
        switches=dict(
            force='choose the best checkpoint by the split that is reported (the record says '
            'so); evaluate held-out images that have changed',
            discard='do not keep the predictions',
            sequential='members of an ensemble one after another',
        ),
        workdir='folder of the run',
        split='test (default), train or minival',
        batch_size="images a step; the run's own by default",
        step='of the checkpoint, or best; the newest by default',
        select_by='split that decides which is best: minival (default)',
        ensemble='snapshots, runs or weights',
        control='a workdir of the same cost; may be given several times',
        format='json (default), of an ensemble also text',
        data='another data set: imagenet_real, imagenet_a, ...',
        root='of that data set',
        protocol='alexnet_10, vgg_dense, ... (default: as the source gives images); of --weights also '
        'as_published, with the size of their published accuracy',
        resolution="side of the net's input; of training by default",
        scales='shorter sides before cropping: 256,384,512',
        interpolation='of resizing: bilinear (default), bicubic or nearest',
        average="of views: probabilities or logits; the paper's by default",
        weights='with --workdir: raw, or the average that the run keeps: ema, swa, polyak. Without: a net, '
        'run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET or a path; may be given several times; '
        '@FILE lists nets, one a line; the sweep() of @FILE.py returns settings such as '
        "{'weights': 'run:a', 'protocol': 'resnet_10'}",
        out='folder for the record and the predictions of --weights',
        limit='at most so many images of the split',
        every='one image in so many of the split',
    )
    if options.workdir:
        options.workdir = at_hand.read(options.workdir, '--workdir')
    numbers = cli.integers(options, 'batch_size', 'resolution', 'limit', 'every')
    scales = tuple(cli.integer('scales', part) for part in options.scales.split(',')) if options.scales else ()
    if not options.workdir and not options.weights:
        raise UserError('nothing to evaluate; expected --workdir of a run, or --weights of a net and --data')
    names = ('data', 'root', 'protocol', 'interpolation', 'average')
    words = {name: v for name in names if (v := getattr(options, name))}
    if options.workdir and options.weights:
        words['weights'] = options.weights[-1]
    how = How(
        options.split or 'test',
        scales=scales,
        stacked=False if options.sequential else None,
        keep=not options.discard,
        **numbers,
        **words,
    )
    style = lookup('format', {'json': json.dumps, 'text': ensemble_text.as_text}, options.format or 'json')
    if not options.workdir:
        view = measure.View(how.protocol, how.resolution, how.scales, how.interpolation, how.average)
        part = dict(split=how.split, batch_size=how.batch_size, limit=how.limit, every=how.every)
        if options.weights[0].startswith('@'):
            return _print_each(options.weights, how, view, options.out, part)
        print(json.dumps(measure.run(options.weights, how.data, how.root, view, options.out, **part)))
        return 0
    if options.ensemble:
        others = _others(options.workdir, options.rest)
        paths_of_controls = [path for control in options.control for path in _between_commas(control)]
        controls = tuple(taking.take(paths_of_controls, _finished)) if paths_of_controls else ()
        print(style(run_ensemble(options.workdir, options.ensemble, others, controls, how)))
        return 0
    if options.rest or options.control or style is ensemble_text.as_text:
        raise UserError('further workdirs, --control and --format=text belong to --ensemble; give one')
    step = options.step if options.step in (None, 'best') else cli.integer('step', options.step)
    fields = {field.name: getattr(how, field.name) for field in dataclasses.fields(how)}
    select_by = options.select_by or 'minival'
    print(json.dumps(run(options.workdir, step=step, select_by=select_by, force=bool(options.force), **fields)))
    return 0


if __name__ == '__main__':
    cli.run(main)
