"""The benchmark tells the loop from the bare step."""

import json
import time

from cvresearch import benchmark
from cvresearch.engine.phases import Phases
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
