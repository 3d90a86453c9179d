"""The former place of `tests.peers.exports`."""

raise SystemExit('python -m tests.peers.exported is now python -m tests.peers.exports')
