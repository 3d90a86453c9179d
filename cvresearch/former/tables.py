"""The former name of `cvresearch report tables`: python -m cvresearch.tables."""

from cvresearch.cli import former

main = former('report tables', __name__)
