"""Checkpoints that survive a kill: atomic, asynchronous (Orbax), and verified when read.

On disk every block of a deep stage has its own names, however the state holds them (nn/stacked.py).
"""

import dataclasses
import logging
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from cvresearch.base import hosts, trees
from cvresearch.base.errors import RunError, UserError
from cvresearch.engine.state import State
from cvresearch.nn.stacked import stack, unstack

# Orbax logs the tracebacks of its threads; the same errors are raised here, and said in one line.
logging.getLogger('absl').addFilter(lambda entry: 'orbax' not in entry.pathname)

MARGIN = 1 << 16  # bytes beside the arrays of a checkpoint
_NEWER = ('skipped', 'method', 'compression')  # fields of the state that the oldest checkpoints do not have
_UNFINISHED = re.compile(r'.*(orbax-checkpoint-tmp|\.deleting).*')


class Checkpoints:
    """The checkpoints of a run, one folder `<step>` each, beside a record of their contents.

    Of several hosts the first reads and writes, and only it need see the folder; all call `save` and `restore`. A
    state is whole on disk, so that it can be restored onto any mesh of any number of hosts. With `read_only` each
    reads for itself.

    Orbax writes a folder under another name and renames it when it is whole; the record holds
    the SHA-256 of the state, which `restore` compares.
    """

    def __init__(self, directory: Path, keep: int | None = 2, read_only: bool = False, failures: int = 1):
        """Clears away what a killed process left unfinished.

        Args:
          directory: made where it does not exist.
          keep: how many of the latest checkpoints stay; None for all.
          read_only: change nothing on disk: the run may belong to another process.
          failures: so many saves in a row that fail are an error; those before are warnings.
        """
        self._directory = directory = directory.absolute()  # Orbax takes no other
        self._keep, self._read_only = keep, read_only
        self._best: int | None = None
        self._saving: int | None = None
        self._allowed, self._failures, self._must = failures, 0, False
        self._writes = hosts.is_primary() and not read_only
        self._saver = _alone()
        if not self._writes:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._clear()

    def steps(self) -> list[int]:
        """Returns the steps of all finished checkpoints, oldest first; to others than the first process, none."""
        if not self._writes and not self._read_only:
            return []
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if path.name.isdigit())

    def save(self, state: State, step: int, best: int | None = None, must: bool = False) -> None:
        """Begins to save `state`; the program goes on while it is written.

        A save that fails, such as on a full disk, is a warning: there is the checkpoint before it, and the next one.

        Args:
          state: may be donated to the next step as soon as this returns.
          step: its position in the stream.
          best: the step of the checkpoint to keep beside the latest.
          must: a failure is an error: this is the last save, and with it the result would be lost.

        Raises:
          RunError: too many saves in a row failed, this one or the one before it; or this one, which must not.
        """
        # One save at a time; and what went wrong with the last one is said before there is another.
        self.wait()
        # A run that goes on arrives at the step at which it was saved, where a save is due again.
        if hosts.broadcast(step in self.steps()):
            return
        state = unstack(hosts.to_host(state))  # may be views of the device's memory: Orbax copies before it returns
        if not self._writes:
            return
        self._best, self._saving, self._must = best, step, must
        record = {'step': step, 'sha256': trees.sha256(state), 'leaves': _leaves(state)}
        try:
            self._check_space(state)
            self._saver.save(
                self._directory / str(step),
                args=ocp.args.Composite(state=ocp.args.StandardSave(_stored(state)), record=ocp.args.JsonSave(record)),
            )
        except Exception as error:
            self._fail(error)

    def wait(self) -> None:
        """Returns when the save under way is finished, and removes the checkpoints it replaces.

        Raises:
          RunError: that save failed, and it must not, or was one too many; the checkpoints before it are untouched.
        """
        try:
            self._saver.wait_until_finished()
        except Exception as error:
            self._fail(error)
        if self._saving is None:
            return
        self._saving, self._failures = None, 0
        # Only now: until the new one is whole, the old ones are all that a killed run has.
        for step in self.steps()[: -self._keep] if self._keep else ():
            if step != self._best:
                remove(self._directory / str(step))

    def restore(self, like: State, at: int | None = None) -> State | None:
        """Returns the newest checkpoint that is whole, None where there is none.

        A damaged one is passed over with a warning, and moved to the folder `damaged` beside
        `checkpoints`, so that a later save of the same step finds its place free.

        Args:
          like: a state of the same structure; its shapes, dtypes and shardings are taken.
          at: the step to take, and no other; the newest by default.

        Raises:
          UserError: a checkpoint is whole, but of another model or optimizer.
        """
        # On disk each block has its own names, so that a run may go on with its blocks stacked or not.
        blocks = unstack(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like))
        state = self._newest(blocks, at) if self._writes or self._read_only else None
        if not self._read_only:
            if not hosts.broadcast(state is not None):
                return None
            state = hosts.broadcast_arrays(blocks if state is None else state)
        return state and hosts.to_devices(stack(state, like), jax.tree.map(lambda x: x.sharding, like))

    def _newest(self, blocks: State, at: int | None) -> State | None:
        for step in reversed([step for step in self.steps() if at in (None, step)]):
            path = self._directory / str(step)
            try:
                record = self._read(path, 'record', ocp.args.JsonRestore())
                _compare(path, record['leaves'], _leaves(blocks))
                state = blocks.replace(**self._read(path, 'state', ocp.args.StandardRestore(_stored(blocks))))
                if trees.sha256(state) != record['sha256']:
                    raise ValueError('its SHA-256 differs from the recorded one')
                return state
            # A whole checkpoint of another net is no damage: to pass it over would train anew without a word.
            except UserError:
                raise
            except Exception as error:  # whatever Orbax and TensorStore make of a broken file
                reason = _one_line(error)
                kept = path if self._read_only else self._set_aside(path)
                print(f'warning: checkpoint {step} is damaged ({reason}); passed over, kept as {kept}', file=sys.stderr)
        return None

    def close(self) -> None:
        """Waits for the last save."""
        self.wait()
        self._saver.close()

    def _read(self, path: Path, item: str, args):
        return self._saver.restore(path, args=ocp.args.Composite(**{item: args}))[item]

    def _check_space(self, state: State) -> None:
        """Raises OSError where the disk has no room, before half a checkpoint is written."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + MARGIN
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise OSError(f'No space left on device ({needed:,} bytes needed, {free:,} free)')

    def _set_aside(self, path: Path) -> Path:
        folder = self._directory.parent / 'damaged'
        folder.mkdir(exist_ok=True)
        number = 0
        while (target := folder / f'{path.name}.{number}').exists():
            number += 1
        path.rename(target)
        return target

    def _fail(self, error: Exception) -> None:
        """Frees what a failed save has taken, and warns, or raises RunError where that is no longer enough."""
        self._clear()
        reason, step = _one_line(error), self._saving
        good = [other for other in self.steps() if other != step]
        last = f'the last good one is of step {good[-1]}' if good else 'there is none before it'
        text = f'cannot save the checkpoint of step {step}: {reason}; {last}'
        self._saving, self._failures = None, self._failures + 1
        if self._must:
            raise RunError(text) from error
        if self._failures >= self._allowed:
            raise RunError(f'{text}; it is the last of {self._failures} in a row (config.save_failures)') from error
        of = f'failure {self._failures} of the {self._allowed} in a row that stop the run'
        print(f'warning: {text}. Training goes on ({of})', file=sys.stderr)

    def _clear(self) -> None:
        """Removes what was left unfinished."""
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            if _UNFINISHED.match(path.name):
                shutil.rmtree(path, ignore_errors=True)


def _alone() -> ocp.AsyncCheckpointer:
    """Returns a saver that waits for no other process: each state is whole, and one process writes it."""
    if jax.process_count() == 1:
        return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
    here = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f'host{here}'
    )
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options),
        state=ocp.StandardCheckpointHandler(multiprocessing_options=options),
        record=ocp.JsonCheckpointHandler(multiprocessing_options=options),
    )
    return ocp.AsyncCheckpointer(handler, multiprocessing_options=options)


def remove(path: Path) -> None:
    """Deletes a checkpoint so that a kill in the middle leaves no half of it under its name."""
    doomed = path.with_name(f'{path.name}.deleting')
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _one_line(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, OSError):
        return text
    for cause in ('No space left on device', 'Disk quota exceeded', 'Read-only file system', 'Permission denied'):
        if cause in text:
            return cause
    return (text.splitlines() or [type(error).__name__])[0][:160]


def _stored(state: State) -> dict:
    """Returns a state as it lies on disk: without the fields that older versions lack, where those hold nothing."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if name not in _NEWER or jax.tree.leaves(value)}


def count_and_digest(params) -> tuple[int, str]:
    """Returns the number of parameters and the SHA-256 of their blocks, each under its name."""
    arrays = unstack(hosts.to_host(params))
    return trees.count(arrays), trees.sha256(arrays)


def _leaves(state) -> dict[str, str]:
    return {name: f'{leaf.dtype}{list(leaf.shape)}' for name, leaf in trees.named_leaves(state)}


def _compare(path: Path, saved: dict[str, str], expected: dict[str, str]) -> None:
    """Raises UserError where a checkpoint's arrays are not the program's; parameters are named first."""
    names = [name for name in sorted({*saved, *expected}) if saved.get(name) != expected.get(name)]
    names.sort(key=lambda name: not name.startswith('params/'))
    if not names:
        return
    different = [f'{name}: {saved.get(name, "absent")} -> {expected.get(name, "absent")}' for name in names]
    more = f' and {len(different) - 4} more, below' if len(different) > 4 else ''
    raise UserError(
        f'checkpoint {path} does not fit the program (saved -> expected: {"; ".join(different[:4])}{more}): '
        f'{_cause(names, saved, expected)}, or use another --workdir',
        details=different[4:],
    )


def _cause(names: list[str], saved: dict[str, str], expected: dict[str, str]) -> str:
    """Returns the likely reason why arrays differ, and what to do."""
    params = [name for name in names if name.startswith('params/')]
    kind = 'optimizer' if any(name.startswith('opt_state/') for name in names) else 'recipe'
    if not params:
        return f'the model is the same and the {kind} is another; train on with the one that it was saved with'
    if not all(name in saved and name in expected for name in params):
        return 'it is of another model, or of another version of it; use what wrote it'
    last_axes = (
        {layouts[name].rstrip(']').split('[')[1].split(', ')[-1] for name in params} for layouts in (saved, expected)
    )
    before, after = last_axes
    if all('/head/' in name for name in params) and len(before) == len(after) == 1 and before != after:
        return (
            f'it was trained with {before.pop()} classes, and the data set or config.model.num_classes now has '
            f'{after.pop()}; train on with the classes that it was trained with'
        )
    return 'another argument of the model, or images of another size or kind; train on with what it was trained with'
