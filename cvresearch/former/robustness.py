"""The former name of `cvresearch evaluate robustness`: python -m cvresearch.robustness."""

from cvresearch.cli import former

main = former('evaluate robustness', __name__)
