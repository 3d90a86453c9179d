"""Commands of the documents in a form that takes seconds, in which tests/docs/documents.py runs them.

A training ends after two steps, and an experiment on a large set of images takes its `:smoke`; of a sweep the first
run is made; a cluster prints what it would do; a server answers once; a measurement has few rounds. What a command
would write to docs/records lies in the reader's own folder.
"""

import itertools
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cvresearch.base import config as configs
from cvresearch.base import sweeps
from cvresearch.base.errors import UserError
from tests.docs import pages

SMALL = ['--config.max_steps=2', '--config.log_every_steps=1']
CYCLES = ['--config.epochs=2', '--config.snapshot_every_epochs=1']  # an ensemble needs the ends of two
WORDS = {'cvresearch.main': 'train', 'cvresearch.benchmark': 'benchmark'}
LARGE = ('imagenet', 'fashion_mnist', 'cifar10')  # which their `:smoke` replaces by a few images
CLUSTERS = ('slurm', 'tpu', 'kubernetes')
KEPT = 'docs/records/'
SMALL_IMAGENET = 'imagenet'  # a folder with some images in ImageNet's two tars
MAIN = pages._main
SECONDS = 120  # in which a server answers, and hosts find each other
_hosts: list[subprocess.Popen] = []  # that wait for the last one


def call(program: str, argv: list[str]) -> int:
    """Runs a command in a form that takes seconds; returns its exit code."""
    argv = [_here(word, before) for before, word in itertools.pairwise(['', *argv])]
    if program == 'python' and argv[0] == '-c':
        exec(argv[1], {})
        return 0
    if program == 'python' and argv[0].endswith('.py'):
        argv = ['-m', argv[0].removesuffix('.py').replace('/', '.'), *argv[1:]]
    if program == 'python' and argv[:1] == ['-m']:
        module = argv[1]
        verb = WORDS.get(module) or module.removeprefix('launch.')
        return MAIN(program, ['-m', module, *short([verb, *argv[2:]])[1:]])
    argv = short(argv)
    if argv[0] == 'serve':
        return _served(argv)
    if '--hosts' in argv:
        return _host(argv)
    with pytest.MonkeyPatch.context() as patch:
        if argv[0] == 'sweep':
            _cleared(Path(argv[argv.index('--workdir') + 1]))
            patch.setattr(configs, 'sweep_of', _first_of(configs.sweep_of))
        code = MAIN(program, argv)
    return 0 if argv == ['data', 'prepare', SMALL_IMAGENET, *argv[3:]] and code == 1 else code  # counts are WRONG there


def short(argv: list[str]) -> list[str]:
    """Returns a command of `cvresearch` that takes seconds.

    >>> short(['train', '--config', 'configs/lenet5_digits.py', '--workdir', 'runs/a'])[-2:]
    ['--config.max_steps=2', '--config.log_every_steps=1']
    >>> short(['benchmark', '--model', 'lenet5', '--steps', '1000'])
    ['benchmark', '--model', 'lenet5', '--steps', '10']
    >>> short(['sweep', '--on', 'slurm', '--config', 'configs/lenet5_digits.py'])[-2:]
    ['--config.log_every_steps=1', '--dry_run']
    >>> short(['predict', 'a.png'])
    ['predict', 'a.png']
    """
    verb, flags = argv[0], set(argv)
    looks_only = bool({'--status', '--dry-run', '--dry_run'} & flags)
    trains = verb in ('sweep', 'chain') or (verb in ('train', 'doctor') and not looks_only)
    if trains and '--config' in flags and '--extend' not in flags:
        if verb == 'chain':  # a teacher that has learned nothing is sure of nothing
            return [*argv, '--config.max_steps=150']
        return [*_trained_shortly(argv), *(['--dry_run'] if set(CLUSTERS) & flags else [])]
    if '--limit' in flags:
        return [*_without(argv, '--limit'), '--limit', '20']
    if verb == 'compound' and not looks_only:
        return [*_without(argv, '--budget'), '--budget', '1.2', '--dry_run']
    if verb == 'one_card' and not looks_only:
        return [*argv, '--dry_run']
    if verb == 'benchmark':
        ensemble = 'ensemble' in flags
        return [
            *_without(argv, '--steps', '--images', '--rounds'),
            *(['--rounds', '1'] if ensemble else ['--steps', '10']),
        ]
    return argv


def _trained_shortly(argv: list[str]) -> list[str]:
    at = argv.index('--config') + 1
    file, _, given = argv[at].partition(':')
    config = configs.load(argv[at])
    if config.data.name in LARGE and 'smoke' not in given:
        argv = [*argv[:at], f'{file}:{given},smoke' if given else f'{file}:smoke', *argv[at + 1 :]]
    if 'configs/snapshots' in file:
        return [*argv, *CYCLES, *(['--config.schedule.t_0_epochs=1'] if config.schedule.name == 'sgdr' else [])]
    return [*argv, *SMALL]


def _without(argv: list[str], *flags: str) -> list[str]:
    return [word for i, word in enumerate(argv) if word not in flags and argv[i - 1] not in flags]


def _here(word: str, before: str) -> str:
    """Returns a place for a record within the reader's folder; the run that is there for one that a sweep left out."""
    if before in ('--record', '--out') and word.startswith(KEPT):
        return word.removeprefix('docs/')
    parent = Path(word).parent
    if word.startswith('runs/') and before != '--out' and not Path(word).exists() and len(parent.parts) > 1:
        there = sorted(path.parent for path in parent.glob('*/config.json'))
        return str(there[0]) if len(there) == 1 else word
    return word


def _cleared(folder: Path) -> None:
    """Takes a run away whose folder is to be a sweep's: a page has one or the other."""
    if (folder / 'config.json').exists():
        shutil.rmtree(folder)


def _first_of(sweep_of):
    def first(spec: str):
        found = sweep_of(spec)
        return found if isinstance(found, sweeps.Search) else list(itertools.islice(found, 1))

    return first


def _served(argv: list[str]) -> int:
    """Starts a server, waits until it answers, and ends it."""
    port = int(argv[argv.index('--port') + 1])
    process = subprocess.Popen([sys.executable, '-m', 'cvresearch', *argv])
    for _ in range(SECONDS * 10):
        time.sleep(0.1)
        with socket.socket() as line:
            if process.poll() is None and line.connect_ex(('127.0.0.1', port)) == 0:
                break
    process.send_signal(signal.SIGTERM)
    return process.wait(SECONDS)


def _host(argv: list[str]) -> int:
    """Starts host 0 of two on this machine; with host 1, waits for both."""
    place, number = argv.index('--coordinator') + 1, argv[argv.index('--host') + 1]
    argv = [*argv[:place], '127.0.0.1:7733', *argv[place + 1 :]]
    argv[argv.index('--hosts') + 1], argv[argv.index('--workdir') + 1] = '2', 'runs/hosts'
    _hosts.append(subprocess.Popen([sys.executable, '-m', 'cvresearch', *argv]))
    if number == '0':
        return 0
    codes = [process.wait(SECONDS) for process in _hosts]
    _hosts.clear()
    if any(codes):
        raise UserError(f'hosts ended with {codes}')
    return 0
