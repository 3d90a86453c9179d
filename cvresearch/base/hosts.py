"""What the processes of a run, one on each host, decide alike and hold together. One process is a group of one."""

import json
from collections import deque
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

POLL_SECONDS = 0.1
LAG = 2  # calls after which `Agreement.soon` has its answer: as many updates as the device has before it


def first() -> bool:
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
        own = np.broadcast_to(np.array(flags, np.int32), (jax.local_device_count(), len(flags)))
        return self._most(jax.make_array_from_process_local_data(self._divided, np.ascontiguousarray(own)))


def from_first(value):
    """Returns the first process' `value`, anything that JSON can hold, on all."""
    if jax.process_count() == 1:
        return value
    text = json.dumps(value).encode() if first() else b''
    size = bytes_from_first(np.array([len(text)], np.int64))
    return json.loads(bytes_from_first(np.frombuffer(text or bytes(int(size[0])), np.uint8)).tobytes())


def bytes_from_first(array: np.ndarray) -> np.ndarray:
    """Returns the first process' array on all, to the bit; the others give one of the same shape and dtype."""
    from jax.experimental import multihost_utils  # slow to import, and one host has no use for it

    # As whole numbers: the sum that the broadcast is made of would turn -0.0 into 0.0.
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = np.asarray(multihost_utils.broadcast_one_to_all(raw))
    return whole.astype(np.uint8).view(array.dtype).reshape(array.shape)


def gathered(tree):
    """Returns the tree with NumPy's arrays, whole on every host, also of what is divided between the hosts."""

    def leaf(x):
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return jax.device_get(x)
        # One after another: no device need hold more than one leaf whole.
        whole = NamedSharding(x.sharding.mesh, PartitionSpec())
        return jax.device_get(_same(x, whole))

    if all(not isinstance(x, jax.Array) or x.is_fully_addressable for x in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    return jax.tree.map(leaf, tree)


def _same(x: jax.Array, placement: NamedSharding) -> jax.Array:
    return jax.jit(lambda x: x, out_shardings=placement)(x)


def put(tree, placements):
    """Puts a tree of NumPy's arrays, the same on all hosts, where `placements` say (one for all, or a tree)."""
    if jax.process_count() == 1:
        return jax.device_put(tree, placements, may_alias=False)

    def leaf(x, placement):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, placement, lambda index: x[index])

    if isinstance(placements, NamedSharding):
        placements = jax.tree.map(lambda _: placements, tree)
    return jax.tree.map(leaf, tree, placements)
