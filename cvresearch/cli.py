"""The console command: cvresearch VERB ARGUMENTS, the same as python -m cvresearch VERB ARGUMENTS."""

import importlib
import sys
from collections.abc import Mapping

from cvresearch import __version__
from cvresearch.base import cli
from cvresearch.base.errors import BAD_INPUT, UserError, nearest

# A verb is (its module, what it is for); a group of verbs is a table of its own. Modules are imported when called.
VERBS = {
    'train': ('cvresearch.main', 'trains an experiment file'),
    'sweep': ('launch.sweep', 'trains every setting of a file\'s sweep(): here, on SLURM, TPU VMs, Kubernetes'),
    'evaluate': ('cvresearch.evaluate', 'evaluates a checkpoint or an ensemble by any protocol'),
    'score': ('cvresearch.score', 'computes further metrics and tests from kept predictions'),
    'robustness': ('cvresearch.robustness', 'measures errors under the corruptions of ImageNet-C'),
    'predict': ('cvresearch.predict', 'says what is on a photograph'),
    'label': ('cvresearch.label', 'labels a whole source of images by any net, for a student to learn from'),
    'export': ('cvresearch.export', 'writes a net as ONNX, StableHLO, a hub folder, or weights of another library'),
    'serve': ('cvresearch.serve', 'answers over HTTP what is on a photograph; with a page for people'),
    'look': ('cvresearch.look', 'shows why a net answers as it does, and what it has learned'),
    'features': ('cvresearch.features', 'writes what layers of a net give for a whole data set'),
    'probe': ('cvresearch.probe', 'fits a linear classifier or nearest neighbours to such features'),
    'summary': ('cvresearch.summary', 'shows a net layer by layer, or all variants against their facts'),
    'compress': ('cvresearch.compress.__main__', 'makes a net small: factors, pruning, shared weights, codes, int8'),
    'track': ('cvresearch.track', 'sends the records of runs to Weights & Biases, MLflow, or a tracker of yours'),
    'doctor': ('cvresearch.doctor', 'says whether a run would start on this machine'),
    'benchmark': ('cvresearch.benchmark', 'times a training step and the loop around it'),
    'plan': ('cvresearch.plan', 'compiles a recipe for a machine that is not here: memory, bytes, least time'),
    'data': {
        'prepare': ('cvresearch.data.prepare', 'checks a folder of images or a copy of ImageNet'),
        'explain': ('cvresearch.data.explain', 'shows what is done to an image'),
    },
    'report': {
        'tables': ('cvresearch.tables', 'sets runs beside published tables: LaTeX, Markdown, CSV, HTML'),
        'plots': ('cvresearch.pictures', 'draws learning curves, ball charts, schedules: PDF, SVG, PNG'),
    },
}  # fmt: skip


def start() -> None:
    """Runs the verb on the command line and exits with its code."""
    cli.run(main)


def main(argv: list[str]) -> int:
    """Runs a verb; returns its exit code.

    Raises:
      UserError: an unknown verb, or a group without one of its verbs.
    """
    table, path = VERBS, []
    while isinstance(table, Mapping):
        if not argv or argv[0] in ('-h', '--help', '--version'):
            print(f'cvresearch {__version__}' if argv and argv[0] == '--version' else usage(table, path))
            return 0 if argv else BAD_INPUT
        verb, *argv = argv
        if verb not in table:
            raise UserError(f'unknown command {" ".join(["cvresearch", *path, verb])!r}; {nearest(verb, table)}')
        table = table[verb]
        path.append(verb)
    sys.argv = [' '.join(['cvresearch', *path]), *argv]
    return importlib.import_module(table[0]).main(argv)


def usage(table: Mapping, path: list[str]) -> str:
    """Returns the verbs of a table, a line each."""
    rows = [
        (verb, entry[1] if isinstance(entry, tuple) else f'{", ".join(entry)}: see cvresearch {verb} --help')
        for verb, entry in table.items()
    ]
    lines = [f'  {verb:<12}{text}' for verb, text in rows]
    command = ' '.join(['cvresearch', *path])
    return '\n'.join([f'usage: {command} VERB ...; {command} VERB --help tells its flags', '', *lines])


if __name__ == '__main__':
    start()
