"""The former name of `cvresearch summary`: python -m cvresearch.summary."""

from cvresearch.cli import former

main = former('summary', __name__)
