"""Several processes as one run, each a host of its own: started, stopped, killed, gone on with another number.

The rules of the watch are tried with processes that only watch, which start in a second. The training itself is run by
two hosts by default, and by four under the marker `slow`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from cvresearch import main, train
from cvresearch.base import cluster, heartbeat, hosts, trees
from cvresearch.base.errors import BAD_INPUT, HOST_LOST, PREEMPTED, UserError
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.data.stream import Stream
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from tests.environment import DEVICES, xla_flags

LONG = 120  # seconds of patience, where nobody is to be missed
# Parameters and moments divided over the devices of all hosts, and a save, an evaluation and a log to agree on.
FLAGS = [
    '--config',
    'configs/lenet5_fake.py:smoke',
    '--config.model.name=softmax_regression',
    '--config.mesh.least=0',
    '--config.save_every_epochs=0.125',
    '--config.log_every_steps=2',
]


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as found:
        return found.getsockname()[1]


# The program, which sends itself a signal when it arrives at a step.
SIGNALLING = """
import os, signal, sys
from cvresearch import main
from cvresearch.base import cli
from cvresearch.engine.session import Session
name, step = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]
real = Session.arrived
def arrived(session, at, state):
    real(session, at, state)
    if at == step:
        os.kill(os.getpid(), getattr(signal, name))
Session.arrived = arrived
cli.run(main.main)
"""


def start(command, host, number, port, patience, devices=1):
    """Starts one host; it computes on so many devices of its own."""
    flags = [
        '--hosts',
        str(number),
        '--host',
        str(host),
        '--coordinator',
        f'127.0.0.1:{port}',
        '--patience',
        str(patience),
    ]
    return subprocess.Popen(
        [sys.executable, *command, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {'XLA_FLAGS': xla_flags(f'{DEVICES}{devices}')},
    )


def ends(processes, seconds=540):
    """Returns (exit code, standard error) of each, and leaves none behind."""
    try:
        return [(process.wait(seconds), process.stderr.read()) for process in processes]
    finally:
        for process in processes:
            process.kill()


def run_on(number, workdir, *more, signals=(), devices=1, patience=LONG):
    """Runs a training on so many hosts; `signals` are (host, name, step): it sends that to itself there."""
    port, started = free_port(), []
    for host in range(number):
        command = ['-m', 'cvresearch.main']
        for whose, name, step in signals:
            if whose == host:
                command = ['-c', SIGNALLING, name, str(step)]
        command = [*command, *FLAGS, '--workdir', str(workdir), *more]
        started.append(start(command, host, number, port, patience, devices))
    return started


def rows(workdir, split):
    return [row for row in read_metrics(Path(workdir) / 'metrics.jsonl') if row['split'] == split]


def compare(ours, alone):
    """The same images, counted the same; losses that differ by rounding alone."""
    assert [row['sha256'] for row in rows(ours, 'data')] == [row['sha256'] for row in rows(alone, 'data')]
    for split in ('train', 'test'):
        for a, b in zip(rows(ours, split), rows(alone, split), strict=True):
            assert (a['step'], a['n_seen']) == (b['step'], b['n_seen'])
            assert a['loss'] == pytest.approx(b['loss'], rel=1e-4)
    card = read_card(ours)
    assert card['status'] == 'finished' and card['final']['test']['n_seen'] == 256


def config_of(smoke, **more):
    return smoke(mesh__least=0, save_every_epochs=0.125, log_every_steps=2, **more)


@pytest.fixture
def alone(smoke, tmp_path):
    """The run of one process on one device."""
    assert train.run(config_of(smoke), tmp_path / 'alone') == 0
    return tmp_path / 'alone'


def test_two_hosts_stop_at_one_step_and_go_on_on_another_mesh(alone, smoke, tmp_path):
    found = ends(
        run_on(2, tmp_path / 'run', '--config.mesh.data=1', '--config.mesh.shard=2', signals=[(1, 'SIGTERM', 5)])
    )
    assert [code for code, _ in found] == [PREEMPTED] * 2, found
    card = read_card(tmp_path / 'run')
    assert card['status'] == 'preempted' and card['hosts'] == 2 and 5 <= card['step'] <= 5 + hosts.LAG
    assert 'epoch 0.25: test' in found[0][1] and 'test' not in found[1][1]  # the first speaks for all
    # What lay divided over two hosts is whole on disk, with the digest that the run card of both has.
    checkpoints = Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True)
    state = checkpoints.restore(Experiment.from_config(config_of(smoke)).abstract_state())
    assert trees.sha256(jax.device_get(state.params)) == card['params_sha256'] and int(state.step) == card['step']
    found = ends(run_on(2, tmp_path / 'run', '--config.mesh.data=2', '--config.mesh.shard=1'))
    assert [code for code, _ in found] == [0] * 2, found
    compare(tmp_path / 'run', alone)


# Processes that only watch: `main` as the programs have it, around something that takes its time.
WATCHING = """
import sys, time
from cvresearch.base.errors import UserError
from cvresearch.base.heartbeat import Coordinator, Watch
host, hosts, port, patience = (int(sys.argv[sys.argv.index(flag) + 1].rpartition(':')[2])
                               for flag in ('--host', '--hosts', '--coordinator', '--patience'))
if host == 0:
    Coordinator(port, hosts, patience).start()
watch = Watch(host, hosts, ('127.0.0.1', port), patience)
watch.roll_call()
print('begun', flush=True)
if sys.stdin.readline() == 'fail\\n':
    watch.fail('no bread', 2)
    sys.exit(2)
watch.leave()
"""


class Watchers:
    """Processes that watch each other until they are told something."""

    def __init__(self, number, patience, absent=()):
        port = free_port()
        self.there = [host for host in range(number) if host not in absent]
        self.processes = {
            host: subprocess.Popen(
                [
                    sys.executable,
                    '-c',
                    WATCHING,
                    '--host',
                    str(host),
                    '--hosts',
                    str(number),
                    '--coordinator',
                    f'127.0.0.1:{port}',
                    '--patience',
                    str(patience),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for host in self.there
        }

    def begin(self):
        for process in self.processes.values():
            assert process.stdout.readline() == 'begun\n', process.stderr.read()

    def say(self, host, word):
        self.processes[host].stdin.write(f'{word}\n')
        self.processes[host].stdin.flush()

    def ends(self, but=None):
        found = ends([process for host, process in self.processes.items() if host != but])
        if but is not None:
            self.processes[but].kill()
        return found


@pytest.mark.parametrize(('number', 'first'), [(2, 1), (4, 3), (2, 0), (4, 0)])
def test_hosts_that_all_stay_end_well(number, first):
    watchers = Watchers(number, LONG)
    watchers.begin()
    watchers.say(first, 'leave')
    time.sleep(1)  # host 0 is still there for those who are late
    for host in watchers.there:
        if host != first:
            watchers.say(host, 'leave')
    assert watchers.ends() == [(0, '')] * number


@pytest.mark.parametrize(('number', 'absent'), [(2, 1), (2, 0), (4, 2)])
def test_a_host_that_does_not_start_is_named_by_all_others(number, absent):
    watchers = Watchers(number, 3, absent={absent})
    for code, error in watchers.ends():
        assert code == HOST_LOST and len(error.splitlines()) == 1
        assert re.search(rf'error: host {absent} of {number} .*did not start within 3 s', error)


@pytest.mark.parametrize(('number', 'gone'), [(2, 0), (2, 1), (4, 0), (4, 3)])
def test_a_host_that_is_killed_is_named_at_once_by_all_others(number, gone):
    watchers = Watchers(number, LONG)
    watchers.begin()
    begun = time.monotonic()
    watchers.processes[gone].kill()
    for code, error in watchers.ends(but=gone):
        assert code == HOST_LOST and len(error.splitlines()) == 1
        assert error.startswith(f'error: host {gone} (127.0.0.1) was killed, or its connection broke. Host ')
    assert time.monotonic() - begun < LONG / 2


def test_the_host_of_the_meeting_hears_last_of_a_loss(monkeypatch):
    port, told, real = free_port(), [], heartbeat._send

    def send(connection, what):
        if 'lost' in what and len(told) < 3:  # not of the test's own end
            told.append(connection.getpeername()[1])
        real(connection, what)

    monkeypatch.setattr(heartbeat, '_send', send)
    heartbeat.Coordinator(port, 4, LONG).start()
    there = [socket.create_connection(('127.0.0.1', port)) for _ in range(4)]
    ports = [connection.getsockname()[1] for connection in there]
    for host, connection in enumerate(there):
        connection.sendall(b'{"host": %d, "hosts": 4}\n' % host)
        assert connection.recv(100)
    there.pop().close()
    for connection in reversed(there):
        while b'lost' not in connection.recv(1000):
            pass
    for connection in there:
        connection.close()
    assert sorted(told) == sorted(ports[:3]) and told[-1] == ports[0]


@pytest.mark.parametrize(('number', 'gone'), [(2, 1), (4, 0)])
def test_a_host_that_is_stopped_is_named_after_the_time_by_all_others(number, gone):
    watchers = Watchers(number, 4)
    watchers.begin()
    begun = time.monotonic()
    watchers.processes[gone].send_signal(signal.SIGSTOP)
    for code, error in watchers.ends(but=gone):
        assert code == HOST_LOST and len(error.splitlines()) == 1
        assert error.startswith(f'error: host {gone} (127.0.0.1) has not answered for 4 s')
    assert time.monotonic() - begun > 3


def test_a_host_that_fails_says_why_to_all_others():
    watchers = Watchers(2, LONG)
    watchers.begin()
    watchers.say(1, 'fail')
    (code, error), (own, _) = watchers.ends()
    assert code == own == BAD_INPUT and error.startswith('error: host 1 stopped: no bread. Host 0 stops')


@pytest.mark.parametrize(
    ('flags', 'said'), [(('--hosts', '2'), 'needs --host NUMBER'), (('--hosts', 'two'), 'expected a whole number')]
)
def test_flags_that_do_not_fit_are_refused(flags, said, tmp_path):
    with pytest.raises(UserError, match=said):
        main.main([*FLAGS, '--workdir', str(tmp_path / 'run'), *flags])


def test_numbers_of_hosts_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r'--host is 2 of --hosts 2'), hosts.joined(2, 2, '10.0.0.1:7733', LONG):
        pass


def test_hosts_see_only_their_part_and_the_parts_are_the_whole(smoke):
    examples = Experiment.from_config(smoke()).source.splits['train']
    whole = Stream(examples, 0, 64).batch(5)
    parts = [Stream(examples, 0, 64, host, 4).batch(5) for host in range(4)]
    assert all(len(part['image']) == 16 for part in parts)
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


STEP = {'SLURM_JOB_ID': '12', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '3'}
OLDER, NEWER = 'name:id:10.0.0.2,name:id:10.0.0.3', 't1v-0,t1v-1'


@pytest.mark.parametrize(
    ('environment', 'tpu', 'found'),
    [
        (STEP | {'SLURM_STEP_NODELIST': 'node[003-006]'}, {}, (4, 3, 'node003:20012')),
        (STEP | {'SLURM_STEP_NODELIST': 'a-1,b-[2,3]'}, {}, (4, 3, 'a-1:20012')),
        ({}, {'agent-worker-number': '1', 'worker-network-endpoints': OLDER}, (2, 1, '10.0.0.2:7733')),
        ({}, {'agent-worker-number': '0', 'worker-network-endpoints': NEWER}, (2, 0, 't1v-0:7733')),
    ],
)
def test_clusters_say_which_host_this_is(environment, tpu, found, monkeypatch):
    for name in [name for name in os.environ if name.startswith('SLURM_')]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster.metadata, 'server', lambda: 'stand-in' if tpu else None)
    monkeypatch.setattr(cluster.metadata, 'value', lambda server, name: tpu.get(name.removeprefix('attributes/'), ''))
    assert cluster.hosts() == found


def test_what_the_first_tells_arrives_to_the_bit(monkeypatch):
    # The broadcast itself is JAX's; here it hands back what it is given.
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(multihost_utils, 'broadcast_one_to_all', np.asarray)
    monkeypatch.setattr(hosts, 'PIECE', 16)
    nan = np.full((3, 5), np.nan, np.float32)
    tree = {'step': np.int32(5), 'zero': np.float32(-0.0), 'nan': nan, 'none': np.zeros(0)}
    assert trees.sha256(hosts.broadcast_arrays(tree)) == trees.sha256(tree)
    assert all(got.shape == np.shape(tree[name]) for name, got in hosts.broadcast_arrays(tree).items())
    assert hosts.broadcast([{'step': 5}, None]) == [{'step': 5}, None]


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'mesh'), [(2, (2, 1)), (2, (1, 4)), (4, (4, 1)), (4, (2, 2))])
def test_hosts_train_as_one(alone, tmp_path, number, mesh):
    more = [f'--config.mesh.data={mesh[0]}', f'--config.mesh.shard={mesh[1]}']
    for name in ('run', 'again'):
        found = ends(run_on(number, tmp_path / name, *more, devices=mesh[0] * mesh[1] // number))
        assert [code for code, _ in found] == [0] * number, found
    compare(tmp_path / 'run', alone)
    assert read_card(tmp_path / 'run')['params_sha256'] == read_card(tmp_path / 'again')['params_sha256']
    predictions = [dict(np.load(path / 'predictions/test.npz')) for path in (tmp_path / 'run', alone)]
    np.testing.assert_array_equal(predictions[0]['labels'], predictions[1]['labels'])
    np.testing.assert_allclose(predictions[0]['logits'], predictions[1]['logits'], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'gone', 'name'), [(2, 0, 'SIGKILL'), (4, 3, 'SIGKILL'), (2, 1, 'SIGSTOP'), (4, 0, 'SIGSTOP')]
)
def test_hosts_end_when_one_is_gone_and_go_on_bit_for_bit(tmp_path, number, gone, name):
    assert {code for code, _ in ends(run_on(number, tmp_path / 'whole'))} == {0}
    # Of host 0 the checkpoint of step 4 is finished before the signal; of others it need not be.
    started = run_on(number, tmp_path / 'run', signals=[(gone, name, 7)], patience=20 if name == 'SIGSTOP' else LONG)
    others = ends([process for host, process in enumerate(started) if host != gone])
    started[gone].kill()
    how = 'was killed, or its connection broke' if name == 'SIGKILL' else 'has not answered for 20 s'
    for code, error in others:
        assert code == HOST_LOST, error
        assert f'error: host {gone} (127.0.0.1) {how}' in error
    assert {code for code, _ in ends(run_on(number, tmp_path / 'run'))} == {0}
    assert read_card(tmp_path / 'run')['params_sha256'] == read_card(tmp_path / 'whole')['params_sha256']
    drop = SPEED
    texts = [
        [{k: v for k, v in row.items() if k not in drop} for row in read_metrics(tmp_path / run / 'metrics.jsonl')]
        for run in ('run', 'whole')
    ]
    assert json.dumps(texts[0]) == json.dumps(texts[1])
