"""The former name of `cvresearch evaluate score`: python -m cvresearch.score."""

from cvresearch.cli import former

main = former('evaluate score', __name__)
