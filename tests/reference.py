"""Prints a part of the reference: python -m tests.reference keys|renamed|commands.

Everything is read from the code: keys and defaults from the constructors, meanings from their docstrings, flags from
the programs. `python -m tests.ledger docs/reference/config.md` writes it into the document, and a test fails where the
document differs or a key has no meaning.
"""

import argparse
import dataclasses
import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from configs import common
from cvresearch import cli as verbs
from cvresearch.base import cli
from cvresearch.base.config import NEWER, RENAMED
from cvresearch.base.errors import lookup
from cvresearch.base.overrides import flatten
from cvresearch.data.crops import Crop
from cvresearch.data.policies import Policy
from cvresearch.data.transforms import Transform
from cvresearch.engine import arguments
from cvresearch.engine.augment import Augment
from cvresearch.nn.norms import Normalization
from cvresearch.objectives.losses import Distillation
from cvresearch.objectives.mixing import Mixing
from cvresearch.optim.optimizers import Decay
from cvresearch.optim.schedules import ScheduleOptions
from cvresearch.optim.updates import OptimizerOptions

MEANINGS = Path(__file__).with_suffix('.toml')  # of keys that no docstring explains
REQUIRED = inspect.Parameter.empty
OF_THE_FILE = dict(epochs='float', batch_size='int', eval_batch_size='int')  # every experiment file says them
# Types that neither a default nor a constructor tells.
STATED = {
    'normalize.mean': 'Sequence',
    'normalize.std': 'Sequence',
    'loss.class_weights': 'str, Sequence',
    'unlabelled.policy': 'Policy',
}
# What a word in an annotation is called.
KINDS = dict(
    bool='yes or no',
    int='whole number',
    float='number',
    str='text',
    Sequence='list',
    tuple='list',
    Tuple='list',
    Mapping='group',
    dict='group',
    Crop='group',
    Policy='group',
)
SECTION = re.compile(r'^\s*(?:Args|Attributes):\s*$')
# Classes whose fields mean the same under every name of a group.
SHARED = {
    'unlabelled.policy': (Policy,),
    'transform.train': (Transform,),
    'transform.train.crop': (Crop,),
    'transform.train.policy': (Policy,),
    'augment': (Augment,),
    'mixing': (Mixing,),
    'distillation': (Distillation,),
    'optimizer': (Decay,),
    'updates': (OptimizerOptions,),
    'schedule': (ScheduleOptions,),
    'batch_norm': (Normalization,),
}


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
      path: as it is typed, 'optimizer.momentum'.
      names: of the constructors that take it with this default; empty for keys outside of groups with names.
      default: `inspect.Parameter.empty` for one that must be given.
      meaning: a sentence, '' if nothing says it.
      annotation: the type that the constructor states, where the default does not tell it.
    """

    path: str
    names: tuple[str, ...]
    default: object
    meaning: str
    annotation: str = ''

    @property
    def kind(self) -> str:
        """The type in plain words, 'number or list'."""
        if self.path.endswith('.name'):
            return 'text'
        kinds = {bool: 'yes or no', int: 'whole number', float: 'number', str: 'text', tuple: 'list', dict: 'group'}
        own = [text for kind, text in kinds.items() if isinstance(self.default, kind)][:1]
        stated = [text for word, text in KINDS.items() if re.search(rf'\b{word}\b', self.annotation)]
        return own[0] if own else ' or '.join(dict.fromkeys(stated))


def documented(constructor: Callable) -> dict[str, str]:
    """Returns what the docstring of a constructor, and of the classes that it extends, says of each argument.

    >>> documented(documented)
    {'constructor': 'a function or a class.'}

    Args:
      constructor: a function or a class.
    """
    found: dict[str, str] = {}
    for one in reversed(inspect.getmro(constructor)) if inspect.isclass(constructor) else (constructor,):
        inside, name, indent = False, '', 0
        for line in (inspect.getdoc(one) or '').splitlines() if one is not object else ():
            depth = len(line) - len(line.lstrip())
            if SECTION.match(line):
                inside, indent = True, depth
            elif inside and line.strip() and depth <= indent:
                inside = False
            elif inside and (match := re.match(r'\s*\*{0,2}([\w, ]+?): (.*)', line)) and depth == indent + 2:
                name = match[1]
                found |= dict.fromkeys(name.split(', '), match[2])
            elif inside and name and line.strip():
                found |= {key: f'{found[key]} {line.strip()}' for key in name.split(', ')}
    return found


def annotated(constructor: Callable) -> dict[str, str]:
    """Returns the annotation of each argument of a function or a class, as text."""
    own = {key: value.annotation for key, value in inspect.signature(constructor).parameters.items()}
    return {key: inspect.formatannotation(value) for key, value in own.items() if value is not REQUIRED}


def every_key() -> list[Key]:
    """Returns every key of a configuration: outside of groups first, then group by group.

    Arguments of the nets are in `cvresearch summary NAME`; `transform.eval` takes what `transform.train` takes.
    """
    said = tomllib.loads(MEANINGS.read_text())
    comments = dict(re.findall(r'^ +(\w+)=.*?#\s*(.*)$', inspect.getsource(common.classification), re.M))
    outside = flatten(common.classification('DATA', 0.0, 0)) | {k: v for k, v in NEWER.items() if '.' not in k}
    found = [
        Key(
            key,
            (),
            REQUIRED if key in OF_THE_FILE else value,
            said.get('', {}).get(key) or comments.get(key, ''),
            OF_THE_FILE.get(key, ''),
        )
        for key, value in outside.items()
        if '.' not in key and not arguments.is_group(key)
    ]
    for path in arguments._GROUPS:
        if path != 'model' and not path.startswith('transform.eval'):
            texts = said.get(path.removeprefix('transform.train.').removeprefix('unlabelled.'), {})
            # Images without labels come from the same sources, with the same arguments.
            found += _of_group(path, said['data'] | texts if path == 'unlabelled' else texts)
    return found


def _of_group(path: str, said: Mapping[str, str]) -> list[Key]:
    table = arguments._group(path).table
    shared = {key: text for one in SHARED.get(path, ()) for key, text in documented(one).items()}
    rows: dict[tuple, list[str]] = {}
    types = {key: text for one in SHARED.get(path, ()) for key, text in annotated(one).items()}
    for name in table or ('',):
        own = documented(lookup(path, table, name)) if table else {}
        types = annotated(lookup(path, table, name)) | types if table else types
        for key, default in arguments.takes(path, name or None).items():
            meaning = own.get(key) or said.get(key) or shared.get(key, '')
            rows.setdefault((key, repr(default), meaning), []).append((name, default))
    order = list(dict.fromkeys(key for key, _, _ in rows))  # rows of one key stand together
    found = [] if table is None else [Key(f'{path}.name', tuple(table), REQUIRED, said.get('name', 'Which of these.'))]
    for key, _, meaning in sorted(rows, key=lambda row: order.index(row[0])):
        names = rows[key, _, meaning]
        everywhere = table is None or len(names) == len(table)
        found.append(
            Key(
                f'{path}.{key}',
                () if everywhere else tuple(n for n, _ in names),
                names[0][1],
                meaning,
                STATED.get(f'{path}.{key}') or types.get(key, ''),
            )
        )
    return found


def _cell(text: object) -> str:
    return ' '.join(str(text).replace('|', '\\|').split())


def keys_table() -> str:
    """Returns the table of all keys in Markdown."""
    lines = ['| key | type | default | meaning | only for |', '| --- | --- | --- | --- | --- |']
    for key in every_key():
        default = 'must be given' if key.default is REQUIRED else f'`{_cell(repr(key.default))}`'
        names = ', '.join(f'`{name}`' for name in key.names)
        lines.append(f'| `{key.path}` | {key.kind} | {default} | {_cell(key.meaning)} | {names or "all"} |')
    return '\n'.join(lines) + '\n'


def renamed_table() -> str:
    """Returns the table of older names of keys in Markdown."""
    rows = [f'| `{old}` | `{new}` |' for old, new in RENAMED.items()]
    return '\n'.join(['| older name | name |', '| --- | --- |', *rows]) + '\n'


def commands() -> dict[str, str]:
    """Returns the module of each command, 'report tables': 'cvresearch.report.tables'."""
    return {words: module for words, (module, _) in verbs.COMMANDS.items()}


class _Parsed(Exception):  # noqa: N818
    """What a program would have parsed."""


def flags_of(module: str) -> tuple[str, dict[str, str], dict[str, str], tuple[str, ...]]:
    """Returns (what a program does, its flags with a value, its switches, the flags that must be given)."""
    parse = cli.parse

    def catch(
        argv, usage, required=None, switches=None, positional=None, places=(), repeated=(), buckets=(), **options
    ):
        raise _Parsed(usage, options, switches or {}, tuple(options) if required is None else required)

    cli.parse = catch
    try:
        importlib.import_module(module).main([])
    except _Parsed as parsed:
        return parsed.args
    finally:
        cli.parse = parse
    raise AssertionError(f'{module} parses no command line')


def strangers(code: str) -> list[str]:
    """Returns the command, or the flags of it, in `cvresearch VERB --flag VALUE` that do not exist."""
    words = code.split()
    if words[0] != 'cvresearch' or len(words) == 1 or words[1].isupper() or words[1].startswith('-'):  # VERB, --help
        return []
    known = commands()
    if ' '.join(words[1:]) in verbs.FORMER:
        return []
    verb = next((name for length in (2, 1) if (name := ' '.join(words[1 : 1 + length])) in known), None)
    if verb is None:
        return [' '.join(words[:3])]
    _, options, switches, _ = flags_of(known[verb])
    flags = re.findall(r'(?<=--)[\w-]+(?= |$|=)', code)
    return [f'{verb} --{flag}' for flag in flags if flag.replace('-', '_') not in {*options, *switches, 'help'}]


def commands_text() -> str:
    """Returns a section for each command in Markdown: what it does and its flags."""
    parts = []
    for verb, module in commands().items():
        usage, options, switches, required = flags_of(module)
        parts.append(f'## cvresearch {verb}\n\n```text\n{usage.strip()}\n```\n')
        rows = [
            f'| `--{name} VALUE` | {_cell(text)}{" (must be given)" * (name in required)} |'
            for name, text in options.items()
        ]
        rows += [f'| `--{name}` | {_cell(text)} |' for name, text in switches.items()]
        parts.append('\n'.join(['| flag | meaning |', '| --- | --- |', *rows]) + '\n' if rows else '')
    return '\n'.join(part for part in parts if part)


PARTS: dict[str, Callable[[], str]] = {'keys': keys_table, 'renamed': renamed_table, 'commands': commands_text}


def main(argv: list[str]) -> int:
    """Prints a part; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('part', choices=PARTS)
    print(PARTS[parser.parse_args(argv).part](), end='')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
