"""A sweep on one HTML page that opens offline: python -m launch.report --workdir DIR [--out DIR/report.html]."""

from cvresearch.base import at_hand, cli
from cvresearch.base.errors import UserError
from cvresearch.base.paths import is_bucket
from cvresearch.base.workdir import write_atomically
from cvresearch.report import sweep_page


def main(argv: list[str]) -> int:
    """Writes the page; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('workdir',),
        places=('workdir', 'out'),
        buckets=('workdir',),
        workdir='folder of the sweep',
        out='file to write; report.html in that folder by default',
    )
    if is_bucket(options.workdir) and not options.out:
        raise UserError(f'--workdir is {options.workdir!r}, and --out is missing: file of this machine for the page')
    folder = at_hand.read(options.workdir, '--workdir', records=True)
    out = options.out or folder / 'report.html'
    write_atomically(out, sweep_page.page(folder))
    print(out)
    return 0


if __name__ == '__main__':
    cli.run(main)
