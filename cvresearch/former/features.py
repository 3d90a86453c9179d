"""The former name of `cvresearch features`: python -m cvresearch.features."""

from cvresearch.cli import former

main = former('features', __name__)
