"""The former place of a program of contributors."""

raise SystemExit('python -m cvresearch.ledger is now python -m tests.ledger, in a checkout')
