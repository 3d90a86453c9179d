"""python -m cvresearch.data VERB: the same as cvresearch data VERB."""

from cvresearch.cli import start

start('data')
