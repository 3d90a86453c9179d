"""The former name of `cvresearch report ensembles`: python -m cvresearch.ensembles."""

from cvresearch.cli import former

main = former('report ensembles', __name__)
