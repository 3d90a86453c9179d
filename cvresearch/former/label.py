"""The former name of `cvresearch label`: python -m cvresearch.label."""

from cvresearch.cli import former

main = former('label', __name__)
