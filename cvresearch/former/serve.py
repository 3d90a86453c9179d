"""The former name of `cvresearch serve`: python -m cvresearch.serve."""

from cvresearch.cli import former

main = former('serve', __name__)
