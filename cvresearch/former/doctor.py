"""The former name of `cvresearch doctor`: python -m cvresearch.doctor."""

from cvresearch.cli import former

main = former('doctor', __name__)
