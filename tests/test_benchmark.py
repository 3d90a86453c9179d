"""The benchmark tells the loop from the bare step."""

import json
import time

import pytest

from cvresearch import benchmark
from cvresearch.base.errors import UserError
from cvresearch.engine.phases import Phases
from cvresearch.nn import devices
from tests.conftest import SMOKE


def test_what_the_loop_waits_for_is_in_its_share_alone(monkeypatch, capsys, tmp_path):
    real = Phases.batch

    def slow(stages, step):
        time.sleep(0.1)  # a hundred times what this step takes
        return real(stages, step)

    monkeypatch.setattr(Phases, 'batch', slow)
    flags = ['--config', SMOKE, '--config.model.name=softmax_regression', '--config.mesh.data=1', '--steps', '25']
    assert benchmark.main([*flags, '--format', 'json', '--record', str(tmp_path / 'loop.json')]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found['ratios']) == 3 and found['ratios'][0] > 5  # turns of ten steps
    assert found['ratio_interval'][0] <= found['ratio'] <= found['ratio_interval'][1]
    record = json.loads((tmp_path / 'loop.json').read_text())
    assert record['rows'][0]['ratio'] == found['ratio'] and record['ratios'] == found['ratios']


def test_a_probes_step_keeps_moments_of_the_head_alone_and_needs_less_memory(capsys):
    flags = ['--model', 'lenet5', '--probe', '--batch_size', '32', '--steps', '2', '--format', 'json']
    assert benchmark.main(flags) == 0
    found = json.loads(capsys.readouterr().out)
    # LeCun et al. 1998 in the common form: 61,706 parameters, 850 in the head; AdamW keeps two float32 of each,
    # and counts its updates.
    assert 0 <= found['moments_bytes'] - 8 * 61_706 < 32 and 0 <= found['probe_moments_bytes'] - 8 * 850 < 32
    assert found['probe_temporary_mib'] < 0.7 * found['temporary_mib']
    with pytest.raises(UserError, match='--probe goes with --model'):
        benchmark.main(['--config', SMOKE, '--probe'])


def test_an_update_in_place_copies_no_parameter():
    """By XLA's own account; without the option it copies five of ten here, and nearly all of larger nets."""
    if devices.compiler_options('cpu') is None:
        pytest.skip('XLA has no such option in this version')
    assert 'copy(%state_params' not in benchmark.Step.of('lenet5', 8, 28).compiled.as_text()
