"""The former name of `cvresearch plan`: python -m cvresearch.plan."""

from cvresearch.cli import former

main = former('plan', __name__)
