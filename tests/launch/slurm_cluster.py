"""A SLURM of one machine, for as long as a test runs: munged, slurmctld and slurmd of Debian's packages, as root."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONF = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=2
KillWait=5
MinJobAge=300
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Returns why there can be no cluster here, None where there can."""
    programs = [name for name in ('munged', 'slurmctld', 'slurmd', 'sbatch') if not shutil.which(name)]
    if programs:
        return f'no {", ".join(programs)} (apt-get install slurm-wlm munge)'
    return None if os.geteuid() == 0 else 'starting slurmd needs root'


@contextlib.contextmanager
def cluster(folder: Path):
    """Starts the daemons; yields the environment of its clients; ends the daemons.

    Raises:
      RuntimeError: the node does not come up.
    """
    host = socket.gethostname().partition('.')[0]
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    (folder / 'slurm.conf').write_text(CONF.format(host=host, folder=folder, ports=_ports(2), cpus=os.cpu_count()))
    # Named, so that none is looked for; none is used.
    version = 'v2' if Path('/sys/fs/cgroup/cgroup.controllers').exists() else 'v1'
    (folder / 'cgroup.conf').write_text(f'CgroupPlugin=cgroup/{version}\n')
    (folder / 'munge.key').write_bytes(os.urandom(1024))
    (folder / 'munge.key').chmod(0o600)
    environment = os.environ | {'SLURM_CONF': str(folder / 'slurm.conf')}
    daemons = []
    try:
        for command in (
            [
                'munged',
                '--foreground',
                '--force',
                f'--socket={folder}/munge.socket',
                f'--key-file={folder}/munge.key',
                f'--pid-file={folder}/munged.pid',
                f'--log-file={folder}/munged.log',
                f'--seed-file={folder}/munged.seed',
            ],
            ['slurmctld', '-D', '-f', f'{folder}/slurm.conf'],
            ['slurmd', '-D', '-N', host, '-f', f'{folder}/slurm.conf'],
        ):
            daemons.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            time.sleep(1)
        end = time.monotonic() + 60
        while 'idle' not in (said := _sinfo(environment)):
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in daemons):
                logs = ''.join(path.read_text()[-1500:] for path in sorted(folder.glob('*.log')))
                raise RuntimeError(f'the node did not come up: {said}\n{logs}')
            time.sleep(0.5)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()


def _sinfo(environment) -> str:
    done = subprocess.run(['sinfo', '--noheader', '--format=%T'], env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(('', 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
