"""python -m cvresearch VERB: the console command."""

from cvresearch.cli import start

start()
