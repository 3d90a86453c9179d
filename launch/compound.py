"""Compound scaling as a laboratory: python -m launch.compound --config configs/X.py --workdir DIR [--budget 2].

Tan & Le 2019 (arXiv:1905.11946, section 3.3): a base net is scaled in depth by alpha, in width by beta, in
resolution by gamma, with alpha * beta^2 * gamma^2 near the budget. Step 1 trains the grid of (alpha, beta, gamma)
whose multiply-adds, counted from the traced program, are within --tolerance of the budget times the base
net's; beside them the nets scaled in one dimension alone to the same cost. The best compound is chosen, and step 2
prints it scaled by phi. The same command again continues, and prints the table when all have run.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from cvresearch.base import cli, outputs, tables
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.records import write_measurement
from cvresearch.data import sources
from cvresearch.inspect import cost
from cvresearch.models import registry
from launch import local, plan, progress

STEP = 0.1
LARGEST = 2.0  # of a coefficient in the grid, at a budget of 2
COLUMNS = ('scaling', 'depth', 'width', 'resolution', 'multiply-adds', 'x base', 'top-1', 'sd', 'seeds', 'split')


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A scaled net.

    Attributes:
      kind: 'base', 'depth', 'width', 'resolution' or 'compound'.
      alpha, beta, gamma: of depth, width and resolution.
      setting: the config keys that make it.
      macs: multiply-adds of one image, counted from the traced program.
      shapes: of all its variables. Widths and depths are rounded, so two settings may make one net.
    """

    kind: str
    alpha: float
    beta: float
    gamma: float
    setting: dict
    macs: int
    shapes: tuple[tuple[int, ...], ...]


def _multipliers(model: dict, defaults: dict, alpha: float, beta: float) -> dict:
    constants = {name: model.get(name, defaults[name]) for name in ('depth', 'width')}
    return {'depth': constants['depth'] * alpha, 'width': constants['width'] * beta}


def _repeats(model: dict, defaults: dict, alpha: float, beta: float) -> dict:
    repeats = tuple(math.ceil(alpha * n - 1e-9) for n in model.get('repeats', defaults['repeats']))
    return {'repeats': repeats, 'width': model.get('width', defaults['width']) * beta}


def _layers(model: dict, defaults: dict, alpha: float, beta: float) -> dict:
    constants = {name: model.get(name, defaults[name]) for name in ('depth', 'width')}
    return {'depth': 6 * max(1, round(alpha * (constants['depth'] - 2) / 6)) + 2, 'width': constants['width'] * beta}


# By the knobs that a model's class has: how depth and width are set. A whole number as depth counts layers (6n + 2).
SCALERS: dict[tuple[tuple[str, type], ...], Callable] = {
    (('depth', float), ('width', float)): _multipliers,
    (('depth', int), ('width', float)): _layers,
    (('repeats', tuple), ('width', float)): _repeats,
}


class Laboratory:
    """The candidates of a base experiment."""

    def __init__(self, config: ConfigDict):
        """Finds how the net is scaled.

        Raises:
          UserError: a net without multipliers, data without an image_size.
        """
        self.config, self.model = config, config.model.to_dict()
        variant = registry.variant(config.model.name)
        fields = {field.name: field.default for field in dataclasses.fields(variant.module)}
        self.defaults = {**fields, **variant.arguments}
        knobs = next((knobs for knobs in SCALERS if all(type(self.defaults.get(k)) is t for k, t in knobs)), None)
        if knobs is None:
            raise UserError(
                f'{config.model.name} has no multipliers of depth and width; expected an EfficientNet, a MobileNet or '
                'a ResNet of CIFAR'
            )
        self.scaler = SCALERS[knobs]
        if 'image_size' not in config.data:
            raise UserError('config.data.image_size is not set; scaling in resolution starts from it')
        facts = sources.load(config.data, 0, config.transform).facts
        self.channels, self.classes = facts.image_shape[2], facts.num_classes
        self.base = self.candidate('base', 1.0, 1.0, 1.0)

    def candidate(self, kind: str, alpha: float, beta: float, gamma: float) -> Candidate:
        """Returns a scaled net, counted."""
        knobs = self.scaler(self.model, self.defaults, alpha, beta)
        size = round(self.config.data.image_size * gamma)
        arguments = {**{k: v for k, v in self.model.items() if k != 'name'}, **knobs}
        net = registry.build(self.config.model.name, **({'num_classes': self.classes} | arguments))
        setting = {**{f'model.{key}': value for key, value in knobs.items()}, 'data.image_size': size}
        image = (size, size, self.channels)
        variables = cost.shapes(net, image)
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(variables))
        return Candidate(kind, alpha, beta, gamma, setting, cost.macs(net, image, variables), shapes)

    def grid(self, budget: float, tolerance: float) -> list[Candidate]:
        """Returns the compounds within `tolerance` (a part) of the budget, as counted."""
        steps = [round(1 + i * STEP, 2) for i in range(round((LARGEST - 1) * budget / 2 / STEP) + 1)]
        # The rule of thumb first, as it is quick; the count then decides.
        near = [c for c in itertools.product(steps, repeat=3) if 0.6 < c[0] * c[1] ** 2 * c[2] ** 2 / budget < 1.6]
        near = [c for c in near if min(sorted(c)[1:]) > 1]
        candidates = [self.candidate('compound', *c) for c in tqdm(near, desc='counting', unit='net', leave=False)]
        return [c for c in candidates if abs(c.macs / self.base.macs / budget - 1) <= tolerance]

    def single(self, kind: str, budget: float) -> Candidate:
        """Returns the net scaled in one dimension alone whose count is nearest the budget."""
        place = ('depth', 'width', 'resolution').index(kind)
        nets = [self.base]
        while nets[-1].macs < budget * self.base.macs:
            step = round(1 + len(nets) * STEP, 2)
            nets.append(self.candidate(kind, *(step if i == place else 1.0 for i in range(3))))
        return min(nets[1:], key=lambda net: (abs(net.macs / self.base.macs - budget), net.alpha))

    def scaled(self, best: Candidate, phi: int) -> Candidate:
        """Returns the compound raised to the power phi (equation 3)."""
        return self.candidate('compound', *(round(c**phi, 4) for c in (best.alpha, best.beta, best.gamma)))


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns the candidates without those that round to the net of an earlier one."""
    kept: dict[tuple, Candidate] = {}
    for candidate in candidates:
        kept.setdefault((candidate.shapes, candidate.setting['data.image_size']), candidate)
    return list(kept.values())


def settings_of(candidates: Sequence[Candidate], seeds: int) -> list[dict]:
    """Returns the sweep: every candidate with every seed."""
    return [{**candidate.setting, 'seed': seed} for candidate in candidates for seed in range(seeds)]


def row(lab: Laboratory, candidate: Candidate, runs: Sequence[plan.SweepRun]) -> dict:
    """Returns a candidate's line of the table; what has not run is a dash."""
    scores = [run.score() for run in runs if run.state() == 'finished']
    values = [score[0] for score in scores if score]
    return {
        'scaling': candidate.kind,
        'depth': candidate.alpha,
        'width': candidate.beta,
        'resolution': candidate.gamma,
        'multiply-adds': candidate.macs,
        'x base': round(candidate.macs / lab.base.macs, 2),
        'top-1': f'{statistics.mean(values):.2f}' if values else None,
        'sd': f'{statistics.stdev(values):.2f}' if len(values) > 1 else None,
        'seeds': len(values) or None,
        'split': scores[0][1] if values else None,
    }


def table(lab: Laboratory, candidates: Sequence[Candidate], runs: Sequence[plan.SweepRun], seeds: int) -> list[dict]:
    """Returns the rows as in tables 3 and 7 of the paper: the base, one dimension alone, compounds from the best."""
    rows = [row(lab, c, runs[i * seeds : (i + 1) * seeds]) for i, c in enumerate(candidates)]
    fixed = [r for r in rows if r['scaling'] != 'compound']
    return fixed + sorted((r for r in rows if r['scaling'] == 'compound'), key=lambda r: -float(r['top-1'] or -1))


def _number(flag: str, text: str | None, usual: float, least: float) -> float:
    try:
        value = float(text) if text else usual
    except ValueError:
        value = -math.inf
    if value < least:
        raise UserError(f'--{flag} is {text!r}; expected a number of at least {least}')
    return value


def main(argv: list[str]) -> int:
    """Trains the candidates and prints the table; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('config', 'workdir'),
        places=('workdir', 'out'),
        switches=dict(dry_run='print the table without training'),
        config='experiment of the base net; its data have an image_size',
        workdir='folder of the sweep',
        budget='times the multiply-adds of the base net; 2 by default',
        tolerance='a part of the budget; 0.1 by default',
        seeds='runs of each candidate; 1 by default',
        phi='powers of the chosen compound that are printed; 3 by default',
        jobs='runs at a time; 1 by default',
        format='text (default), markdown, csv or latex',
        out='file for the record of the table',
    )
    if options.out:
        outputs.check_place(options.out)
    budget, tolerance = _number('budget', options.budget, 2.0, 1.2), _number('tolerance', options.tolerance, 0.1, 0.0)
    seeds, phi, jobs = (
        cli.integer(name, getattr(options, name) or usual) for name, usual in dict(seeds='1', phi='3', jobs='1').items()
    )
    style = options.format or 'text'
    lookup('format', tables.STYLES, style)
    lab = Laboratory(configs.load(options.config, options.overrides))
    singles = [lab.single(kind, budget) for kind in ('depth', 'width', 'resolution')]
    candidates = distinct([lab.base, *singles, *lab.grid(budget, tolerance)])
    folder = options.workdir.absolute()
    settings = settings_of(candidates, seeds)
    overrides = {key: text for key, text in options.overrides.items() if key not in settings[0]}  # the base's, scaled
    runs = plan.runs_of(options.config, overrides, settings, folder)
    code = 0
    if not options.dry_run:
        plan.write_manifest(folder, options.config, overrides, runs)
        code = local.Local(runs, jobs).go()
    rows = table(lab, candidates, runs, seeds)
    if options.out:
        write_measurement(options.out, rows, budget=budget)
    print(tables.render(rows, COLUMNS, style))
    compounds = [(c, runs[i * seeds : (i + 1) * seeds]) for i, c in enumerate(candidates) if c.kind == 'compound']
    leader = progress.best([run for _, runs_of in compounds for run in runs_of])
    if leader:
        best = next(c for c, runs_of in compounds if leader[0] in runs_of)
        scaled = [lab.scaled(best, n) for n in range(1, phi + 1)]
        print(tables.render([row(lab, c, ()) for c in scaled], COLUMNS, style))
    return code


if __name__ == '__main__':
    cli.run(main)
