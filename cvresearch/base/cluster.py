"""Which of how many processes this is, as the flags, SLURM or a TPU VM say."""

import os
import re
from types import SimpleNamespace
from typing import Any

from cvresearch.base import cli, metadata
from cvresearch.base.errors import UserError

TPU_PORT = 7733
# Beside the range of ephemeral ports, so that nothing else has it, and two jobs on one machine seldom the same.
SLURM_PORTS = range(20000, 28000)
FLAGS: dict[str, Any] = dict(
    hosts='processes that train together, one on each host (1); auto: as SLURM or a TPU VM says (docs/hosts.md)',
    host='the number of this one, from 0',
    coordinator='ADDRESS:PORT of host 0, the same for all',
    patience='seconds after which a silent host counts as lost (120)',
)


def of_flags(options: SimpleNamespace) -> tuple[int, int, str, int]:
    """Returns what `FLAGS` say: `hosts()`, and the seconds of patience.

    Raises:
      UserError: a number that is none, a flag that is missing, or `auto` where nothing tells.
    """
    patience = cli.integer('patience', options.patience or '120')
    if options.hosts == 'auto':
        return *hosts(), patience
    count = cli.integer('hosts', options.hosts or '1')
    if count > 1 and not (options.host and options.coordinator):
        raise UserError(f'--hosts {count} needs --host NUMBER, from 0 to {count - 1}, and --coordinator ADDRESS:PORT')
    return count, cli.integer('host', options.host or '0', least=0), options.coordinator or '', patience


def hosts() -> tuple[int, int, str]:
    """Returns how many processes there are, the number of this one, and 'ADDRESS:PORT' of the first.

    Raises:
      UserError: neither is here.
    """
    if 'SLURM_PROCID' in os.environ and 'SLURM_STEP_NODELIST' in os.environ:
        port = SLURM_PORTS[int(os.environ['SLURM_JOB_ID']) % len(SLURM_PORTS)]
        first = first_node(os.environ['SLURM_STEP_NODELIST'])
        return int(os.environ['SLURM_NTASKS']), int(os.environ['SLURM_PROCID']), f'{first}:{port}'
    server = metadata.server()
    number = metadata.value(server, 'attributes/agent-worker-number') if server else ''
    if server and number:
        # A worker each, in order: 'name:id:10.0.0.2,...', or on newer machines 'name,...'.
        workers = metadata.value(server, 'attributes/worker-network-endpoints').split(',')
        parts = workers[0].split(':')
        return len(workers), int(number), f'{parts[2] if len(parts) > 2 else parts[0]}:{TPU_PORT}'
    raise UserError(
        '--hosts auto: this is neither a step of SLURM (srun) nor a TPU VM; give --hosts N, --host NUMBER and '
        '--coordinator ADDRESS:PORT'
    )


def first_node(nodes: str) -> str:
    """Returns the first of SLURM's list of nodes: of 'node[003-007,9],other' it is 'node003'."""
    match = re.match(r'([^,\[]*)(?:\[([^,\-\]]+))?', nodes)
    assert match is not None  # it matches anything
    return match[1] + (match[2] or '')
