"""What a person's environment says to JAX: refused, said and recorded; and no locale changes what is written."""

import os
import subprocess
import sys

import jax
import pytest

from cvresearch import train
from cvresearch.base import records, settings
from cvresearch.base.errors import UserError
from tests.environment import xla_flags


@pytest.mark.parametrize('name', ['jax_enable_x64', 'jax_disable_jit'])
def test_a_run_refuses_what_it_cannot_compute_with(name, smoke, tmp_path):
    with getattr(jax, name.removeprefix('jax_'))(True), pytest.raises(UserError, match=f'{name.upper()} is set, but'):
        train.run(smoke(), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_another_random_generator_is_said_and_recorded(smoke, tmp_path, capsys):
    config = smoke(epochs=0.25)
    with jax.threefry_partitionable(False):
        train.run(config, tmp_path)
        assert 'warning: JAX_THREEFRY_PARTITIONABLE=False: numbers differ' in capsys.readouterr().err
    assert records.read_card(tmp_path)['sessions'][0]['settings']['jax_threefry_partitionable'] is False


def test_a_session_with_other_settings_than_the_last_is_said():
    assert settings.warnings({'jax_debug_nans': True, 'XLA_FLAGS': ['--x']}, {}) == []
    (line,) = settings.warnings({}, {'jax_default_prng_impl': 'rbg'})
    assert "had JAX_DEFAULT_PRNG_IMPL=rbg, this one has JAX's defaults" in line


def test_doing_without_onednn_is_recorded(monkeypatch):
    monkeypatch.setenv(settings.ONEDNN, '0')
    differs, another = settings.warnings(settings.changed(), {})
    assert differs.startswith('CVRESEARCH_ONEDNN=0: numbers differ') and 'this one has CVRESEARCH_ONEDNN=0' in another


def test_jaxs_defaults_are_what_we_take_for_them():
    assert set(settings.changed()) <= {'XLA_FLAGS'}


def test_a_persons_flags_for_xla_are_kept(monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_max_isa=AVX2 --xla_force_host_platform_device_count=2')
    assert xla_flags('--xla_a=1') == '--xla_cpu_max_isa=AVX2 --xla_a=1'


@pytest.mark.parametrize('own', [{'PYTHONIOENCODING': 'ascii'}, {'LC_ALL': 'C', 'PYTHONUTF8': '0'}])
def test_what_is_printed_to_a_file_is_utf8_in_any_locale(own):
    code = "from cvresearch.base import cli\nimport sys\ncli.run(lambda argv: print('caf\\u00e9 \\u732b'))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, env=os.environ | own)
    assert (done.stdout.decode(), done.returncode) == ('caf\u00e9 \u732b\n', 0), done.stderr


def test_the_revision_is_of_this_code_whatever_git_is_told(monkeypatch, tmp_path):
    expected = records._revision()
    monkeypatch.setenv('GIT_DIR', str(tmp_path))
    assert records._revision() == expected
