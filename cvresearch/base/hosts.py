"""What the processes of a run, one on each host, decide alike and hold together. One process is a group of one."""

import contextlib
import json
import os
import traceback
from collections import deque
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cvresearch.base.errors import FAILED, UserError
from cvresearch.base.heartbeat import Coordinator, PortForward, Watch

POLL_SECONDS = 0.1
PIECE = 1 << 24  # bytes
LAG = 2  # calls after which `Agreement.soon` has its answer: as many updates as the device has before it


@contextlib.contextmanager
def joined(hosts: int, host: int, coordinator: str, timeout: float) -> Iterator[None]:
    """Makes this process one of a run's for the length of the block; to be entered before JAX is used.

    Where another host does not start, dies or is silent for `timeout` seconds, the process ends with one line that
    names it and with the code `HOST_LOST`. Where the block raises, all hosts end.

    Args:
      hosts: how many processes there are, one on each host; for 1 nothing is done.
      host: the number of this one, from 0.
      coordinator: 'ADDRESS:PORT', of host 0: the port is free there, and the others reach it.
      timeout: seconds of silence.

    Raises:
      UserError: a number or an address that is none.
    """
    if hosts == 1:
        yield
        return
    name, _, port = coordinator.rpartition(':')
    if not 0 <= host < hosts or not name or not port.isdecimal():
        raise UserError(
            f'--host is {host} of --hosts {hosts} and --coordinator {coordinator!r}; expected a number from 0 to '
            f'{hosts - 1}, and the address of host 0 with a free port, such as 10.0.0.1:7733'
        )
    if host == 0:
        try:
            Coordinator(int(port), hosts, timeout).start()
        except OSError as error:
            raise UserError(f'--coordinator {coordinator}: host 0 cannot listen there ({error})') from error
    watch = Watch(host, hosts, (name, int(port)), timeout)
    try:
        _initialise(watch, hosts, host, timeout)
        yield
        jax.distributed.shutdown()
    except UserError as error:
        watch.fail(' '.join(str(error).split()), error.code)
        raise
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            watch.verdict()  # ends the process where it is another host's fault
        traceback.print_exc()
        watch.fail(f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}', FAILED)
        os._exit(FAILED)  # JAX would wait for the others
    watch.leave()


def _initialise(watch: Watch, hosts: int, host: int, timeout: float) -> None:
    name, port = watch.roll_call()
    address = f'127.0.0.1:{port}'
    if host:
        passage = PortForward((name, port))
        passage.start()
        address = passage.address
    # The watch is the one to notice: JAX's own limits are far beyond its timeout.
    far = int(600 + 10 * timeout)
    jax.config.update('jax_enable_preemption_service', False)  # it would take SIGTERM from us
    jax.distributed.initialize(
        address,
        hosts,
        host,
        coordinator_bind_address=f'0.0.0.0:{port}',
        initialization_timeout=far,
        heartbeat_timeout_seconds=far,
        shutdown_timeout_seconds=far,
        cluster_detection_method='deactivate',
    )


def is_primary() -> bool:
    """Whether this process is the one that writes and prints for all."""
    return jax.process_index() == 0


class Agreement:
    """Questions to which all hosts need the same answer. All must ask the same ones in the same order."""

    def __init__(self):
        self._asked: deque = deque()
        mesh = Mesh(np.array(jax.devices()), ('all',))
        self._divided = NamedSharding(mesh, PartitionSpec('all'))
        self._most = jax.jit(lambda flags: flags.max(0), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def soon(self, flag: bool) -> bool:
        """Whether any host had its flag up `LAG` calls ago; for one host, whether it is up.

        Waits for no device that is not more than `LAG` calls behind: a step is not slowed down by it.
        """
        if jax.process_count() == 1:
            return flag
        self._asked.append(self._of_all(flag))
        return len(self._asked) > LAG and bool(np.asarray(self._asked.popleft())[0])

    def wait(self, done: Callable[[float], bool], stop: Callable[[], bool]) -> bool:
        """Waits until something is done on all hosts; False where one of them was asked to stop before.

        Args:
          done: waits for at most so many seconds, and says whether it is done here.
          stop: whether this host is asked to stop.
        """
        while True:
            waiting, stopping = not done(POLL_SECONDS), stop()
            if jax.process_count() > 1:
                waiting, stopping = map(bool, np.asarray(self._of_all(waiting, stopping)))
            if stopping or not waiting:
                return not waiting

    def _of_all(self, *flags: bool) -> jax.Array:
        local_flags = np.broadcast_to(np.array(flags, np.int32), (jax.local_device_count(), len(flags)))
        return self._most(jax.make_array_from_process_local_data(self._divided, np.ascontiguousarray(local_flags)))


def broadcast(value):
    """Returns the first process' `value`, anything that JSON can hold, on all."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode() if is_primary() else b'', np.uint8)
    size = broadcast_arrays(np.array([len(text)], np.int64))[0]
    return json.loads(broadcast_bytes(text if is_primary() else np.zeros(size, np.uint8)).tobytes())


def broadcast_arrays(tree):
    """Returns the first process' tree of NumPy's arrays on all, bit for bit; the others give one of its shape."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    leaves = [np.asarray(leaf) for leaf in leaves]
    # `ascontiguousarray` alone would give a number an axis.
    packed = broadcast_bytes(np.concatenate([np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in leaves]))
    parts = np.split(packed, np.cumsum([leaf.nbytes for leaf in leaves])[:-1])
    return structure.unflatten(
        [part.view(leaf.dtype).reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    )


def broadcast_bytes(array: np.ndarray) -> np.ndarray:
    """Returns the first process' uint8 (bytes,) on all; the others give one as long.

    As whole numbers, since the sum that the broadcast is made of would turn -0.0 into 0.0; and in pieces of one size,
    for which one program is compiled and which a device has room for.
    """
    from jax.experimental import multihost_utils  # slow to import, and one host has no use for it

    size = min(PIECE, 1 << max(6, (len(array) - 1).bit_length()))
    padded = np.zeros(-(-len(array) // size) * size, np.uint8)
    padded[: len(array)] = array
    for start in range(0, len(padded), size):
        padded[start : start + size] = multihost_utils.broadcast_one_to_all(padded[start : start + size])
    return padded[: len(array)]


def total(number: int) -> int:
    """Returns the sum of a number over all hosts."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.int32(number)).sum())


def to_host(tree):
    """Returns the tree with NumPy's arrays, replicated on every host, also of what is sharded between the hosts."""
    if all(not isinstance(x, jax.Array) or x.is_fully_addressable for x in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    def leaf(x):
        # One after another: no device need hold more than one leaf whole.
        readable = x.is_fully_replicated or x.is_fully_addressable
        return np.asarray(x if readable else multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(leaf, tree)


def to_devices(tree, placements):
    """Puts a tree of NumPy's arrays, the same on all hosts, where `placements` say (one for all, or a tree)."""
    if jax.process_count() == 1:
        return jax.device_put(tree, placements, may_alias=False)

    def leaf(x, placement):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, placement, lambda index: x[index])

    if isinstance(placements, NamedSharding):
        placements = jax.tree.map(lambda _: placements, tree)
    return jax.tree.map(leaf, tree, placements)
