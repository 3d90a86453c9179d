"""The former name of `cvresearch probe`: python -m cvresearch.probe."""

from cvresearch.cli import former

main = former('probe', __name__)
