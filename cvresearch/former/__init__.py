"""Former names of commands: `python -m cvresearch.tables` and the like, found here by `cvresearch.__path__`."""
