"""Decoding shared among processes: the same stream to the bit, damage counted by the run, no process left behind."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import sources
from cvresearch.data.stream import Stream
from tests.data.photographs import jpeg

CROP = dict(name='random_resized_crop', size=32)
TRANSFORM = dict(train=dict(crop=CROP, flip=0.5), eval=dict(crop=CROP))
SLEEPS = """
import sys, time
from cvresearch.data import sources
from cvresearch.data.stream import Stream
from tests.data.test_shared import TRANSFORM
if __name__ == '__main__':
    data = dict(name='image_folder', root=sys.argv[1], processes=2, most_damaged=0.5)
    train = sources.load(data, 0, TRANSFORM).splits['train']
    Stream(train, 0, 8).batch(0)
    print(*train._workers._pool._processes, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    """Returns a folder of 20 training images, one of which is damaged."""
    for part in ('train', 'test'):
        for label in ('cat', 'dog'):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(10):
                (tmp_path / part / label / f'{number}.jpg').write_bytes(jpeg(number))
    (tmp_path / 'train/cat/3.jpg').write_bytes(b'no image')
    return tmp_path


@pytest.mark.parametrize('processes', [1, 2])
def test_a_cpu_takes_a_batch_without_a_copy(folder, processes):
    data = dict(name='image_folder', root=str(folder), processes=processes, most_damaged=0.5)
    train = sources.load(data, 0, TRANSFORM).splits['train']
    batches = [train.take(np.arange(size))[0] for size in (3, 4, 5)]
    if processes == 2:
        train._workers._pool.shutdown()
    for batch in batches:
        assert jax.device_put(batch, jax.devices()[0]).unsafe_buffer_pointer() == batch.ctypes.data


def test_the_stream_of_two_processes_is_one_s_to_the_bit_and_damage_is_counted(folder):
    found = []
    for processes in (1, 2):
        data = dict(name='image_folder', root=str(folder), processes=processes, most_damaged=0.5)
        train = sources.load(data, 0, TRANSFORM).splits['train']
        other = train.with_transform(train.transform)
        stream = Stream(train, 0, 7)
        found.append([*(stream.batch(step) for step in range(4)), other.take(np.arange(5)), train.damage.found])
        if processes == 2:
            train._workers._pool.shutdown()
    assert found[0][-1] == found[1][-1] and list(found[0][-1]) == ['cat/3.jpg']
    for one, two in zip(found[0][:4], found[1][:4], strict=True):
        for key in one:
            assert one[key].dtype == two[key].dtype
            np.testing.assert_array_equal(one[key], two[key])
    np.testing.assert_array_equal(found[0][4][0], found[1][4][0])


def test_processes_end_with_the_run_that_is_killed(folder, tmp_path):
    script = tmp_path / 'sleeps.py'
    script.write_text(SLEEPS)
    environment = os.environ | {'PYTHONPATH': os.getcwd()}
    process = subprocess.Popen([sys.executable, script, folder], stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(number) for number in process.stdout.readline().split()]
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGTERM)  # which a scheduler sends to all: the run still needs them
    process.kill()
    process.communicate()
    end = time.monotonic() + 30
    while any(os.path.exists(f'/proc/{worker}') for worker in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(os.path.exists(f'/proc/{worker}') for worker in workers)


def test_no_process_is_refused(folder):
    with pytest.raises(UserError, match=r'config.data.processes is 0; expected at least 1'):
        sources.load(dict(name='image_folder', root=str(folder), processes=0), 0, TRANSFORM)
