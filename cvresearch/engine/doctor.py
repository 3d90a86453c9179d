"""Says whether a run would start on this machine: cvresearch doctor [--config FILE] [--workdir DIR].

One line for each thing that a run needs: versions, devices, memory, disk, clock, compile cache; with --config also its
data, its net, and whether both fit (of a bucket a few images are read, and nothing is copied); with --hosts, on every
host at once, the network to host 0, and that all hosts have the same versions, time and data. Nothing is left behind
but what JAX compiled.

The exit code is 0 where a run would start, 1 where it would not, 2 for a command that is wrong.
"""

import fcntl
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cvresearch.base import at_hand, cli, cluster, compile_cache, installation
from cvresearch.base.errors import FAILED, UserError
from cvresearch.base.paths import existing, is_bucket
from cvresearch.data.decoded import Pictures
from cvresearch.data.examples import Source
from cvresearch.engine import doctor_buckets
from cvresearch.engine.verdicts import OK, WARNING, WRONG, Verdict

PYTHON = (3, 11)
MIB, GIB = 2**20, 2**30
LITTLE_DISK, LITTLE_MEMORY = 1 * GIB, 2 * GIB
FEW_FILES = 1024  # open at once
SKEW_SECONDS = 5.0
TRIED, SLOW_SECONDS = 8, 5.0  # images of each split
# In a process of its own: JAX ends it for a flag of XLA that it does not know, or waits for a TPU that another has.
PROBE = """
import json
import jax, jax.extend, numpy as np
numbers = np.arange(4096, dtype=np.float32).reshape(64, 64) % 7  # products are exact in any precision
bad = [str(d) for d in jax.local_devices()
       if not np.array_equal(np.asarray(jax.device_put(numbers, d) @ jax.device_put(numbers, d)), numbers @ numbers)]
print(json.dumps({
    'platform': jax.default_backend(), 'kinds': [d.device_kind for d in jax.local_devices()], 'bad': bad,
    'memory': min((d.memory_stats() or {}).get('bytes_limit', 0) for d in jax.local_devices()),
    'runtime': jax.extend.backend.get_backend().platform_version.splitlines()[0],
}))
"""
PROBE_SECONDS = 180


class Report:
    """The findings, printed as they come; `well` as long as nothing is wrong."""

    def __init__(self):
        self.well = True

    def check(self, what: str, look: Callable[..., Iterable[Verdict]], *arguments) -> None:
        """Prints what `look` yields; an error in it is a finding too."""
        try:
            for verdict, text in look(*arguments):
                self._print(what, verdict, text)
        except UserError as error:
            self._print(what, WRONG, str(error))
            print(*(f'            {line}' for line in error.details), sep='\n', end='\n' if error.details else '')
        except Exception as error:  # the machine may be broken in any way
            self._print(what, WRONG, f'{type(error).__name__}: {error}')

    def _print(self, what: str, verdict: str, text: str) -> None:
        self.well = self.well and verdict != WRONG
        print(f'{verdict:<8} {what:<12} {" ".join(text.split())}', flush=True)


def main(argv: list[str]) -> int:
    """Prints the findings; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        places=('workdir',),
        buckets=('workdir',),
        **cluster.FLAGS,
        config='experiment file of the run: its net and its data are made and tried',
        workdir='folder of the run, as it will be trained, also in a bucket; the current folder by default',
    )
    hosts, host, coordinator, patience = cluster.of_flags(options)
    config = cli.config_of(options) if options.config else None
    report = Report()
    report.check('host', _host, host, hosts)
    report.check('packages', _packages)
    report.check('environment', _environment)
    report.check('devices', _devices)
    report.check('memory', _memory)
    workdir, disk = options.workdir, options.workdir or Path.cwd()
    if is_bucket(workdir):
        copies: list[Path] = []
        report.check('bucket', doctor_buckets.workdir, workdir, copies)
        workdir, disk = copies[0] if copies else None, at_hand.root()
    report.check('disk', _disk, disk)
    source = None
    if config and doctor_buckets.folders(config.data):
        report.check('data', doctor_buckets.data, config.data)
        if report.well:
            config, source = doctor_buckets.asking(config)
            if config is None:
                report.check('run', lambda: [(WARNING, 'it was not tried: its data come to this machine first')])
    report.check('clock', _clock)
    report.check('cache', _cache)
    if report.well and (config or hosts > 1):  # otherwise JAX may not start here
        _try(report, config, source, workdir, hosts, host, coordinator, patience)
    print('A run would start here.' if report.well else 'A run would not start here: see the lines with WRONG.')
    return 0 if report.well else FAILED


def _host(host: int, hosts: int) -> Iterator[Verdict]:
    of = f', host {host} of {hosts}' if hosts > 1 else ''
    verdict = OK if sys.version_info >= PYTHON else WRONG
    yield verdict, f'{socket.gethostname()}{of}: {platform.platform()}, Python {platform.python_version()}'


def _packages() -> Iterator[Verdict]:
    missing = installation.unmet(installation.required())
    missing += installation.unmet(metadata.requires('jax') or [])
    if installation.version('libtpu'):
        missing += installation.unmet(metadata.requires('jax') or [], 'tpu')
    names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'libtpu')
    versions = [f'{name} {number}' for name in names if (number := installation.version(name))]
    advice = f'{"; ".join(sorted(set(missing)))}: install the package anew (pip install -U cvresearch)'
    yield (WRONG, advice) if missing else (OK, ', '.join(versions))
    plugins, driver = installation.cuda_plugins(), installation.nvidia_driver()
    library_path = os.environ.get('LD_LIBRARY_PATH', '')
    for line in installation.bad_combinations(plugins, installation.version('jaxlib'), driver, library_path):
        yield WARNING, line


def _environment() -> Iterator[Verdict]:
    from cvresearch.base import settings  # imports JAX, which may be what is broken

    settings.check()
    changed = settings.changed()
    yield OK, ', '.join(f'{name}={value}' for name, value in changed.items()) or 'JAX as by default'
    for line in settings.warnings(changed, None):
        yield WARNING, line
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= files < FEW_FILES:
        yield WARNING, f'{files} files may be open at once; expected {FEW_FILES} or more (ulimit -n {FEW_FILES})'


def _devices() -> Iterator[Verdict]:
    try:
        done = subprocess.run(
            [sys.executable, '-c', PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        yield WRONG, f'JAX has found no devices in {PROBE_SECONDS} s; another process may hold them, or hosts miss'
        return
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        telling = [line for line in lines if 'Error' in line or 'Unknown flag' in line] or lines
        yield WRONG, f'JAX does not start (exit code {done.returncode}): {(telling or ["no message"])[-1][:500]}'
        return
    answer = json.loads(done.stdout.splitlines()[-1])
    kinds = ', '.join(f'{answer["kinds"].count(kind)} x {kind}' for kind in sorted(set(answer['kinds'])))
    memory = f', {answer["memory"] / GIB:.1f} GiB each' if answer['memory'] else ''
    yield OK, f'{kinds} ({answer["platform"]}{memory}; {answer["runtime"]})'
    if answer['bad']:
        yield WRONG, f'a product of whole numbers comes out wrong on {", ".join(answer["bad"])}; take it out of use'
    here = installation.accelerators()
    if answer['platform'] == 'cpu' and here and os.environ.get('JAX_PLATFORMS') != 'cpu':
        yield (
            WRONG,
            (
                f'this machine has {", ".join(here[:4])}, and JAX computes on CPU: install cvresearch[cuda] or '
                'cvresearch[tpu], or say JAX_PLATFORMS=cpu'
            ),
        )


def _memory() -> Iterator[Verdict]:
    limit = installation.memory_limit()
    text = f'{limit / GIB:.1f} GiB for this process'
    yield (OK, text) if limit >= LITTLE_MEMORY else (WARNING, f'{text}; expected {LITTLE_MEMORY / GIB:.0f} or more')


def _disk(workdir: Path) -> Iterator[Verdict]:
    folder = existing(workdir)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix='.doctor-') as file:
            file.write(b'1')
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            behind = os.stat(file.name).st_mtime - time.time()
    except OSError as error:
        yield WRONG, f'{folder} takes no files or no locks ({error.strerror or error}); choose another --workdir'
        return
    free = shutil.disk_usage(folder).free
    text = f'{folder} has {free / GIB:.1f} GiB free'
    yield (OK, text) if free >= LITTLE_DISK else (WARNING, f'{text}; expected {LITTLE_DISK / GIB:.0f} or more')
    if abs(behind) > SKEW_SECONDS:
        yield WARNING, f"the clock of the file server of {folder} is {behind:+.0f} s from this machine's"


def _clock() -> Iterator[Verdict]:
    now = time.time()
    text = time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(now))
    written = Path(np.__file__).stat().st_ctime
    if now < written - SKEW_SECONDS:
        yield WRONG, f'{text} is before the installation of the packages; set the clock (certificates would not hold)'
    else:
        yield OK, text


def _cache() -> Iterator[Verdict]:
    place = os.environ.get(compile_cache.VARIABLE) or str(compile_cache.folder())
    if os.environ.get('JAX_ENABLE_COMPILATION_CACHE', 'true').lower() in ('0', 'false'):
        yield WARNING, 'JAX_ENABLE_COMPILATION_CACHE is off: every start compiles anew'
    elif '://' in place:
        yield WARNING, f'{place} is no folder of this machine, and was not tried'
    elif not os.access(existing(Path(place)), os.W_OK):
        yield WARNING, f'{place} cannot be written: every start compiles anew; set {compile_cache.VARIABLE}'
    else:
        files = [file.stat().st_size for file in Path(place).glob('*') if file.is_file()]
        yield OK, f'{place} has {len(files):,} files, {sum(files) / MIB:,.0f} MiB'


def _try(
    report: Report,
    config: ConfigDict | None,
    source: Source | None,
    workdir: Path | None,
    hosts: int,
    host: int,
    coordinator: str,
    patience: int,
) -> None:
    """Makes of a configuration what a run would, with all hosts as a run has them."""
    from cvresearch.base.hosts import joined, total

    experiments: list = []
    with joined(hosts, host, coordinator, patience):
        if hosts > 1:
            report.check('hosts', _hosts, hosts)
        if config is not None:
            report.check('run', _run, config, source, workdir, experiments)
            # All hosts together, or none: the others would wait for one that could not.
            if total(len(experiments)) == hosts:
                report.check('data', _data, experiments[0], workdir)
        if hosts > 1 and (ill := total(not report.well)):
            report.check('hosts', lambda: [(WRONG, f'something is wrong on {ill} of {hosts} hosts')])


def _hosts(hosts: int) -> Iterator[Verdict]:
    import jax

    from cvresearch.base.hosts import broadcast

    names = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'opencv-python-headless', 'pillow', 'simplejpeg')
    here = {'python': platform.python_version()} | {name: installation.version(name) for name in names}
    start = time.time()
    first = broadcast({'versions': here, 'time': time.time()})
    took = time.time() - start
    yield OK, f'{hosts} hosts, {jax.device_count()} devices, {jax.local_device_count()} of them here'
    versions = first['versions'].items()
    if differing := [f'{name} {here[name]} (host 0: {was})' for name, was in versions if was != here[name]]:
        yield WRONG, f'other versions than on host 0: {", ".join(differing)}; install the same on all'
    behind = start + took / 2 - first['time']
    if abs(behind) > SKEW_SECONDS + took:
        yield WARNING, f'the clock is {behind:+.0f} s from that of host 0'


def _run(config: ConfigDict, source: Source | None, workdir: Path | None, experiments: list) -> Iterator[Verdict]:
    """Yields whether the net, its data and the run's folder go together.

    Puts the experiment into `experiments`, unless its images are counted alone (`source`).
    """
    import jax

    from cvresearch.base import hosts
    from cvresearch.base import workdir as folders
    from cvresearch.engine import memory_plan
    from cvresearch.engine.experiment import Experiment

    if workdir and hosts.is_primary():
        folders.check_config(workdir, config)
        if folders.in_use(workdir):
            raise UserError(f'workdir {workdir} is in use by another process; wait for it or choose another --workdir')
    experiment = Experiment.from_config(config, source)
    experiment.plan.check_batch()
    steps, size = experiment.plan.steps, config.batch_size
    yield OK, f'{config.model.name}, {steps:,} steps of {size} images on a mesh of {dict(experiment.mesh.shape)}'
    if too_large := memory_plan.check(experiment):
        yield WARNING, too_large
    checkpoint = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(experiment.abstract_state()))
    # The new one is written before the oldest is dropped.
    needed, free = checkpoint * (config.keep + 1), shutil.disk_usage(existing(workdir or Path.cwd())).free
    text = f'{config.keep + 1} checkpoints of {checkpoint / MIB:,.1f} MiB, and {free / MIB:,.0f} MiB free'
    yield (WRONG if free < checkpoint else WARNING if free < needed else OK), text
    if source is None:
        experiments.append(experiment)


def _data(experiment, workdir: Path | None) -> Iterator[Verdict]:
    """Yields whether the images are those that the run began with, the same on all hosts, and can be read."""
    from cvresearch.base.hosts import broadcast
    from cvresearch.base.records import read_card
    from cvresearch.data import identity
    from cvresearch.engine import datasets

    source = experiment.source
    present = identity.of(source)
    first = broadcast(present)
    if present != first:
        yield WRONG, f'they differ from those of host 0: {"; ".join(identity.differences(first, present))}'
    if workdir and (changed := datasets.changes(read_card(workdir) or {}, present)):
        yield WRONG, f'they have changed since the run in {workdir} began: {changed}'
    counts = ', '.join(f'{name} {len(split):,}' for name, split in source.splits.items())
    for name, split in source.splits.items():
        index = np.unique(np.linspace(0, len(split) - 1, TRIED).astype(np.int64))
        start = time.perf_counter()
        split.take(index, np.zeros(len(index), np.uint64) if name == 'train' else None)
        seconds = time.perf_counter() - start
        if damaged := split.damage.found if isinstance(split, Pictures) and split.damage else {}:
            yield WARNING, f'{name}: {len(damaged)} of {len(index)} images are damaged (see cvresearch data prepare)'
        if seconds > SLOW_SECONDS:
            yield WARNING, f'{name}: {len(index)} images took {seconds:.1f} s to read'
    yield OK, f'{source.facts.name}: {counts} images; {TRIED} of each were read'
