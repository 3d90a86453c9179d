"""The former name of `cvresearch track`: python -m cvresearch.track."""

from cvresearch.cli import former

main = former('track', __name__)
