"""Is the training program, or one that is killed (kill_at.py), with short waits: python -m tests.bucket_run KILL FLAGS.

KILL is as in kill_at.py, or `null`. So tests need not wait a minute for the lease of a dead process.
"""

import json
import sys

from cvresearch.base import lease, uploads
from tests import kill_at

BEAT, LEASE, PASS = 0.4, 2.5, 0.1


def shorten() -> None:
    """Makes the waits short."""
    lease.BEAT_SECONDS, lease.LEASE_SECONDS = BEAT, LEASE
    uploads.PASS_SECONDS, uploads.MOST_SECONDS = PASS, 1.0


def run(arguments: list[str], kill: dict | None, found: str) -> None:
    """Is the training program with these flags, in a process of its own."""
    shorten()
    kill_at.run(arguments, kill, found)


if __name__ == '__main__':
    wish = json.loads(sys.argv[1])
    run(sys.argv[2:], wish, wish.pop('found') if wish else '')
