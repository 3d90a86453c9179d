"""Sends the records of runs, also in buckets, to a tracker: cvresearch track WORKDIR [WORKDIR ...] --to wandb.

What the tracker has of them already is not sent again. A run that trains sends them by itself with
`cvresearch.main --track`.
"""

import sys
from pathlib import Path

from cvresearch.base import at_hand, cli, lease, tracking
from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import FAILED, UserError
from cvresearch.base.paths import is_bucket


def main(argv: list[str]) -> int:
    """Sends them; returns the exit code: 1 where a tracker did not take all."""
    options = cli.parse(argv, __doc__, positional='workdir', to="tracker: wandb, mlflow, or one of the run's plugins")
    paths = {text: _at_hand(text) for text in options.rest}
    missing = [text for text, path in paths.items() if not (path / 'config.json').is_file()]
    if missing or not paths:
        raise UserError(f'expected the workdirs of runs, got {missing[0] if missing else "none"}')
    done = []
    for text, path in paths.items():
        with tracking.alone(path, options.to):
            done.append(tracking.send(path, options.to, lambda _: False, _warn))
        if is_bucket(text):
            Bucket.of(text).write(f'trackers/{options.to}.json', tracking.state_file(path, options.to).read_bytes())
        print(f'{text}: {"all of it is sent" if done[-1] else "not all was taken"}')
    return 0 if all(done) else FAILED


def _at_hand(text: str) -> Path:
    """Returns a folder of this machine with the records of a run; a run in a bucket must not be going on."""
    path = at_hand.read(text, records=True)
    if is_bucket(text) and lease.in_use(Bucket.of(text)):
        raise UserError(f'{text} is in use by another process, or one that died had it; end it, or run it to its end')
    return path


def _warn(line: str) -> None:
    print(f'warning: {line}', file=sys.stderr)
