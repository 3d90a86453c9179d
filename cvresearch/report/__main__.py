"""python -m cvresearch.report VERB: the same as cvresearch report VERB."""

from cvresearch.cli import start

start('report')
