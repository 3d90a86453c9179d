"""What own data need, in whole runs: weights and shares of classes, a run that stops early, folds, several labels."""

import os
import signal

from cvresearch import train
from cvresearch.base.errors import PREEMPTED
from cvresearch.base.records import SPEED, read_card, read_metrics


def rows(workdir):
    """Returns the metrics without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in SPEED} for row in read_metrics(workdir / 'metrics.jsonl')]


def stop_at(patch, *steps):
    """Sends SIGTERM to the run at these steps, each time once."""
    real, left = train.Progress.step, set(steps)

    def step(progress, at):
        real(progress, at)
        if at in left:
            left.discard(at)
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(train.Progress, 'step', step)


def test_balanced_run_is_resumed_bit_for_bit_and_records_every_epoch(smoke, tmp_path, monkeypatch):
    config = smoke(epochs=2.0, batch_size=96, sampling__name='balanced', loss__class_weights='balanced')
    assert train.run(config, tmp_path / 'alone') == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        assert train.run(config, tmp_path / 'run') == PREEMPTED
    assert train.run(config, tmp_path / 'run') == 0
    assert rows(tmp_path / 'run') == rows(tmp_path / 'alone')
    assert len({read_card(tmp_path / name)['params_sha256'] for name in ('alone', 'run')}) == 1
    data = [row for row in rows(tmp_path / 'run') if row['split'] == 'data']
    assert [row['n_seen'] for row in data] == [1024, 1024] and data[0]['sha256'] != data[1]['sha256']
