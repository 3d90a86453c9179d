"""Trains a net and its students, one generation after another: python -m launch.chain --config FILE.py --workdir DIR.

The experiment file says in `chain()` the settings of each generation, the first one first:

    def chain():
        student = {'method.name': 'soft_labels', 'unlabelled.name': 'rest', 'unlabelled.threshold': 0.5}
        return [{}, student, student | {'model.dropout': 0.5}]

Generation N is an ordinary run in DIR/generationN. One that learns from given labels (method soft_labels) has them from
the generation before, in DIR/labelsN: a student becomes the next teacher (Xie et al. 2019, arXiv:1911.04252, algorithm
1). '{previous}' in a value is the name of the generation before, run:DIR/generationM: {'init.weights': '{previous}'}.

The same command again passes over what is finished and goes on with the rest, however it was stopped. --status prints
where each generation stands, --dry-run the commands.
"""

import fcntl
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvresearch.base import cli, tables
from cvresearch.base import config as configs
from cvresearch.base.errors import FAILED, UserError
from cvresearch.base.paths import local as local_path
from cvresearch.base.records import METRICS, metric_of
from cvresearch.base.workdir import write_atomically
from launch import local, plan
from launch.plan import SweepRun

PREVIOUS = '{previous}'
LABELS = 'labels.npz'  # of `cvresearch label`


def generations(spec: str, overrides: dict[str, str | None], folder: Path) -> list[SweepRun]:
    """Returns the runs of a chain; nothing is written.

    Args:
      spec: the experiment file, as --config has it.
      overrides: of every generation, as typed.
      folder: of the chain.

    Raises:
      UserError: no generations, one that cannot be trained, a first one that needs one before it, a folder that holds
        something else.
    """
    settings = configs.chain_of(spec)
    if not settings:
        raise UserError(f'chain() of {spec} has no generations')
    runs: list[SweepRun] = []
    without_labels = configs.load(spec).unlabelled.name
    for number, setting in enumerate(settings):
        overrides_here = overrides
        if setting.get('unlabelled.name', without_labels) == 'none':  # --config.unlabelled.root is for the students
            overrides_here = {key: text for key, text in overrides.items() if not key.startswith('unlabelled.')}
        name, previous = f'generation{number}', f'run:{folder}/generation{number - 1}'
        if not number and _needs_one_before(plan.make(spec, overrides_here, setting, name, folder)):
            raise UserError(f'{spec}: generation 0 of chain() needs one before it; expected one that learns by itself')
        setting = {
            key: value.replace(PREVIOUS, previous) if isinstance(value, str) else value
            for key, value in setting.items()
        }
        run = plan.make(spec, overrides_here, setting, name, folder)
        if run.config.method.name == 'soft_labels':
            labels = {'unlabelled.labels': str(folder / f'labels{number}' / LABELS)}
            run = plan.make(spec, overrides_here, setting | labels, name, folder)
        runs.append(run)
    return runs


def _needs_one_before(run: SweepRun) -> bool:
    return run.config.method.name == 'soft_labels' or PREVIOUS in configs.to_json(run.config)


def labelling(run: SweepRun, python: str = sys.executable) -> list[str] | None:
    """Returns the command that labels a generation's images by the one before; None if it takes no labels."""
    if run.config.method.name != 'soft_labels':
        return None
    out = Path(run.config.unlabelled.labels).parent
    teacher = run.folder / f'generation{int(run.name.removeprefix("generation")) - 1}'
    return [python, '-m', 'cvresearch', 'label', '--weights', f'run:{teacher}', *run.flags, '--out', str(out)]


def train(runs: list[SweepRun]) -> int:
    """Brings each generation to its end, in order; returns the exit code of the first that does not come to it."""
    for run in runs:
        if run.state() == 'finished':
            continue
        command = labelling(run)
        if command and not Path(run.config.unlabelled.labels).exists():
            print(f'{run.name}: labels', flush=True)
            if code := subprocess.run(command).returncode:
                return code if code > 0 else FAILED
        if code := local.Local([run], 1).go():
            return code
    return 0


def report(runs: list[SweepRun]) -> list[dict]:
    """Returns a row for each generation: what it is, where it stands, its score, what it cost."""
    rows = []
    for run in runs:
        card, score = run.card() or {}, run.score()
        rows.append(
            {
                'generation': run.name.removeprefix('generation'),
                'net': run.config.model.name,
                'method': run.config.method.name,
                'state': run.state(),
                METRICS[metric_of(run.rows())]: f'{score[0]:.2f} %' if score else '',
                'split': score[1] if score else '',
                'images seen': f'{card["images_seen"]:,}' if 'images_seen' in card else '',
            }
        )
    return rows


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the chain's lock for the length of the block.

    Raises:
      UserError: another process has it.
    """
    (folder / plan.OWN).mkdir(parents=True, exist_ok=True)
    with open(folder / plan.OWN / 'chain.lock', 'a', encoding='utf-8') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f'another process trains the chain in {folder}; wait for it, or stop it') from error
        yield


def main(argv: list[str]) -> int:
    """Trains the chain; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('config', 'workdir'),
        places=('workdir',),
        switches=dict(
            dry_run='print the commands, and run nothing',
            status='print where each generation stands',
        ),
        config='experiment file with a chain(), with :ARGUMENT after its name where it takes one',
        workdir='folder of the chain; each generation has a folder in it',
    )
    folder = local_path(options.workdir, 'workdir').absolute()
    if (folder / 'config.json').exists():
        raise UserError(f'{folder} is the folder of a run; a chain needs one of its own: choose another --workdir')
    runs = generations(options.config, options.overrides, folder)
    if options.dry_run:
        for run in runs:
            print(
                *(shlex.join(command) for command in (labelling(run, 'python'), run.command('python')) if command),
                sep='\n',
            )
        return 0
    code = 0
    if not options.status:
        with alone(folder):
            manifest = {
                'config': options.config,
                'overrides': dict(options.overrides),
                'runs': [{'name': run.name, **run.setting} for run in runs],
            }
            write_atomically(folder / 'chain.json', json.dumps(manifest, indent=2, default=str) + '\n')
            code = train(runs)
    totals = report(runs)
    print(tables.render(totals, list(totals[0])))
    return code


if __name__ == '__main__':
    cli.run(main)
