"""The former name of `cvresearch benchmark ensemble`: python -m cvresearch.benchmark_ensemble."""

from cvresearch.cli import former

main = former('benchmark ensemble', __name__)
