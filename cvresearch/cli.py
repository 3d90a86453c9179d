"""The console command: cvresearch VERB ARGUMENTS, the same as python -m cvresearch VERB ARGUMENTS."""

import importlib
import sys
from collections.abc import Callable
from functools import partial

from cvresearch import __version__
from cvresearch.base import cli
from cvresearch.base.errors import BAD_INPUT, UserError, nearest

# By subject: a command of one or two words is (its module, what it does). Modules are imported when called.
SUBJECTS = {
    'Train': {
        'train': ('cvresearch.main', 'trains an experiment file'),
        'sweep': ('launch.sweep', "trains every setting of a file's sweep(): here, on SLURM, TPU VMs, Kubernetes"),
        'chain': ('launch.chain', 'trains a net and its students, one generation after another'),
        'compound': ('launch.compound', 'scales a net in depth, width and resolution, and trains the candidates'),
        'one_card': ('launch.one_card', 'measures and trains what one NVIDIA card does in ten minutes'),
        'doctor': ('cvresearch.engine.doctor', 'says whether a run would start on this machine'),
        'plan': ('cvresearch.engine.plan', 'compiles a recipe for a machine that is not here: memory, least time'),
        'track': ('cvresearch.base.track', 'sends the records of runs to Weights & Biases, MLflow, a tracker of yours'),
        'benchmark': ('cvresearch.benchmark', 'times a training step and the loop around it'),
        'benchmark ensemble': ('cvresearch.evaluation.ensemble_speed', 'times members in one pass and one by one'),
    },
    'Measure and use a net': {
        'evaluate': ('cvresearch.evaluate', 'evaluates a run, an ensemble or any net by any protocol'),
        'evaluate score': ('cvresearch.evaluation.score', 'computes further metrics and tests from kept predictions'),
        'evaluate robustness': ('cvresearch.evaluation.robustness', "measures errors under ImageNet-C's corruptions"),
        'evaluate shifts': ('cvresearch.evaluation.shifts', 'moves the images, and measures accuracy by the shift'),
        'predict': ('cvresearch.predict', 'says what is on a photograph'),
        'label': ('cvresearch.evaluation.label', 'labels a whole source of images, for a student to learn from'),
        'features': ('cvresearch.evaluation.feature_files', 'writes what layers give for a whole data set'),
        'probe': ('cvresearch.evaluation.probes', 'fits a linear classifier or nearest neighbours to such features'),
    },
    'Look inside': {
        'look': ('cvresearch.look', 'shows why a net answers as it does, and what it has learned'),
        'summary': ('cvresearch.inspect.summary', 'shows a net layer by layer, or all variants against their facts'),
    },
    'Make small, ship': {
        'compress sensitivity': ('cvresearch.compress.sensitivity', 'prunes one layer at a time and measures each'),
        'compress': ('cvresearch.compress.__main__', 'makes a net small: factors, pruning, shared weights, int8'),
        'export': ('cvresearch.interop.export', 'writes a net as ONNX, StableHLO, a hub folder, other files'),
        'serve': ('cvresearch.interop.serve', 'answers over HTTP what is on a photograph; with a page for people'),
    },
    'Data': {
        'data prepare': ('cvresearch.data.prepare', 'checks a folder of images or a copy of ImageNet'),
        'data explain': ('cvresearch.data.explain', 'shows what is done to an image'),
    },
    'Tables and plots for papers': {
        'report tables': ('cvresearch.report.tables', 'sets runs beside published tables: LaTeX, Markdown, CSV, HTML'),
        'report sizes': ('cvresearch.compress.tables', 'tabulates small nets, made and published: bytes, accuracy'),
        'report plots': ('cvresearch.report.figures', 'draws learning curves, ball charts, schedules: PDF, SVG, PNG'),
        'report study': ('cvresearch.report.studies', 'sets the settings of a sweep beside each other, over seeds'),
        'report shifts': ('cvresearch.report.shifts', 'tabulates what `evaluate shifts` found of several nets'),
        'report initialisation': ('cvresearch.report.initialisation', 'tabulates layers at the first step'),
        'report efficiency': ('cvresearch.report.efficiency', 'tabulates the compute that nets need to reach a level'),
        'report sweep': ('launch.report', 'shows a sweep on one HTML page, which opens offline'),
        'report ensembles': ('cvresearch.report.ensembles', 'sets ensembles beside runs of the same cost, over seeds'),
    },
}
COMMANDS = {words: entry for commands in SUBJECTS.values() for words, entry in commands.items()}
# Words that commands had before, and have still; each says the new ones.
FORMER = {
    'score': 'evaluate score',
    'robustness': 'evaluate robustness',
    'ensembles': 'report ensembles',
    'tables': 'report tables',
    'pictures': 'report plots',
    'report pictures': 'report plots',
}


def start(*room: str) -> None:
    """Runs the command on the command line and exits with its code; `room` is its first word, if that is known."""
    cli.run(lambda argv: main([*room, *argv]))


def former(words: str, name: str) -> Callable[[list[str]], int]:
    """Returns the main of a command by the name of a former module, and runs it if `name` is '__main__'."""
    again = partial(_again, words)
    if name == '__main__':
        cli.run(again)
    return again


def _again(words: str, argv: list[str]) -> int:
    cli.tell_new_name(f'cvresearch {words}')
    return main([*words.split(), *argv])


def main(argv: list[str]) -> int:
    """Runs a command; returns its exit code.

    Raises:
      UserError: an unknown command, or the first word alone of one with two.
    """
    if argv and argv[0] == '--version':
        print(f'cvresearch {__version__}')
        return 0
    for length in (2, 1):
        words, rest = ' '.join(argv[:length]), argv[length:]
        if words in FORMER:
            return _again(FORMER[words], rest)
        if words in COMMANDS:
            sys.argv = [f'cvresearch {words}', *rest]
            with cli.importing():
                module = importlib.import_module(COMMANDS[words][0])
            return module.main(rest)
    room = argv[0] if argv and any(words.startswith(f'{argv[0]} ') for words in COMMANDS) else ''
    rest = argv[1:] if room else argv
    if not rest or rest[0] in ('-h', '--help'):
        print(usage(room))
        return 0 if rest else BAD_INPUT
    wanted = f'{room} {rest[0]}'.strip()
    raise UserError(f'unknown command {f"cvresearch {wanted}"!r}; {nearest(wanted, COMMANDS)}')


def usage(room: str = '') -> str:
    """Returns a line for each command, by subject; `room`: of those that begin with this word."""
    command = f'cvresearch {room}'.strip()
    lines = [f'usage: {command} VERB ...; {command} VERB --help tells its flags']
    for subject, commands in SUBJECTS.items():
        shown = [(words, text) for words, (_, text) in commands.items() if words.startswith(f'{room} ' * bool(room))]
        if shown:
            lines += ['', f'{subject}:', *(f'  {words:<21}{text}' for words, text in shown)]
    return '\n'.join(lines)


if __name__ == '__main__':
    start()
