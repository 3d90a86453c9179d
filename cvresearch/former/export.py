"""The former name of `cvresearch export`: python -m cvresearch.export."""

from cvresearch.cli import former

main = former('export', __name__)
