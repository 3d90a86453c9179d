"""Makes the generated tables of the documentation anew: python -m cvresearch.ledger [--check] [FILE...].

Without files: README.md and all of docs/. With --check nothing is written, and a file that differs from
its records is an error.
"""

from pathlib import Path

from cvresearch.base import cli
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.base.workdir import write_atomically
from cvresearch.report import ledger


def documents() -> list[Path]:
    """Returns README.md and the documents in docs/."""
    return [Path('README.md'), *sorted(Path('docs').rglob('*.md'))]


def main(argv: list[str]) -> int:
    """Regenerates or checks; returns the exit code."""
    options = cli.parse(argv, __doc__, required=(), positional='files', switches=dict(check='write nothing'))
    for path in [local(name) for name in options.rest] or documents():
        text = ledger.refreshed(path)
        if text == path.read_text():
            continue
        if options.check:
            raise UserError(f'{path} differs from its records; run python -m cvresearch.ledger {path}')
        write_atomically(path, text)
        print(path)
    return 0


if __name__ == '__main__':
    cli.run(main)
