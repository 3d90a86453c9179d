"""Whether a process has an accelerator, by its devices and not by what is installed; and the pages of its heap."""

import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cvresearch.base import memory


@pytest.fixture
def host(monkeypatch, tmp_path):
    """Returns a function that makes this host one with some plugins and some devices."""

    def make(plugins=(), device=None, platforms=''):
        monkeypatch.setenv('JAX_PLATFORMS', platforms)
        monkeypatch.setattr(memory, 'DEV', tmp_path)
        entries = [SimpleNamespace(name=name) for name in plugins if name != 'libtpu']
        monkeypatch.setattr(memory.metadata, 'entry_points', lambda group: entries)
        monkeypatch.setattr(memory.util, 'find_spec', lambda name: name in plugins or None)
        if device:
            (tmp_path / device).parent.mkdir(exist_ok=True)
            (tmp_path / device).touch()

    return make


@pytest.mark.parametrize(
    ('plugins', 'device', 'expected'),
    [
        ((), None, False),
        (('libtpu', 'xla_cuda13'), None, False),  # compilers alone
        ((), 'nvidia0', False),  # JAX cannot drive it
        (('xla_cuda13',), 'nvidia0', True),
        (('xla_cuda13',), 'nvidia-caps', False),
        (('libtpu',), 'accel0', True),
        (('libtpu',), 'vfio/0', True),
        (('libtpu',), 'nvidia0', False),
        (('someone_elses',), None, True),
    ],
)
def test_an_accelerator_is_one_that_is_there(host, plugins, device, expected):
    host(plugins, device)
    assert memory.has_accelerator() is expected


@pytest.mark.parametrize(('platforms', 'expected'), [('cpu', False), ('cuda', True), ('cuda,cpu', True)])
def test_what_jax_is_told_to_take_counts(host, platforms, expected):
    host(('xla_cuda13',), 'nvidia0', platforms)
    assert memory.has_accelerator() is expected


# The flags of the heap's addresses; hg: huge pages are asked for.
HEAP = """
from cvresearch.base import memory
assert memory.keep_freed_pages()
flags, heap = [], False
for line in open('/proc/self/smaps'):
    heap = '[heap]' in line if '-' in line.split()[0] else heap
    if heap and line.startswith('VmFlags:'):
        flags += line.split()
print('huge' if 'hg' in flags else 'small')
"""


@pytest.mark.skipif(
    not memory._huge_pages_are_to_be_asked_for(), reason='NOT TESTED: huge pages, which this system does not give'
)
@pytest.mark.parametrize(
    ('variable', 'limit', 'expected'), [('', 0, 'huge'), ('0', 0, 'small'), ('', 1 << 40, 'small')]
)
def test_the_heap_lies_in_huge_pages_unless_it_is_told_not_to(variable, limit, expected):
    limited = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) if limit else None
    environment = os.environ | {memory.HUGE_PAGES: variable}
    done = subprocess.run(
        [sys.executable, '-c', HEAP], env=environment, preexec_fn=limited, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
