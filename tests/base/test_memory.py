"""Whether a process has an accelerator: by its devices, not by what is installed."""

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
