"""A sweep on one HTML page that opens offline: python -m launch.report --workdir DIR [--out DIR/report.html]."""

from cvresearch.base import cli
from cvresearch.base.workdir import write_atomically
from cvresearch.report import sweep_page


def main(argv: list[str]) -> int:
    """Writes the page; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('workdir',),
        places=('workdir', 'out'),
        workdir='folder of the sweep',
        out='file to write; report.html in that folder by default',
    )
    out = options.out or options.workdir / 'report.html'
    write_atomically(out, sweep_page.page(options.workdir))
    print(out)
    return 0


if __name__ == '__main__':
    cli.run(main)
