"""The former name of `cvresearch report plots`: python -m cvresearch.pictures."""

from cvresearch.cli import former

main = former('report plots', __name__)
