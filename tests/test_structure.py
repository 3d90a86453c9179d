"""The house: floors, no cycles, short chains, and neither TensorFlow nor JAX where they have no place."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from cvresearch.cli import COMMANDS

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / 'cvresearch').rglob('*.py'))
ROOMS = (  # from the lowest floor up
    ('base',),
    ('nn', 'data', 'objectives', 'optim'),
    ('models',),
    ('inspect',),
    ('interop',),
    ('engine',),
    ('evaluation',),
    ('compress', 'report'),
)
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
PROGRAMS = len(ROOMS)  # train, evaluate, predict; and the commands, in whichever room they lie
MODULES_OF_COMMANDS = {module for module, _ in COMMANDS.values()}
NO_MODELS = ('names', 'registry', 'variant')  # what is beside the models in their room
ABOVE_TRAIN = ('main', 'benchmark', 'population', 'cli')
DOORS = ('former', '__main__')  # to cli


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(path): path for path in FILES}


@cache
def imports(module):
    """Returns the modules of the project that a module imports, at any place in the file."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f'{node.module}.{alias.name}' for alias in node.names)]
        found |= {name for name in names if name in MODULES and name not in ('cvresearch', module)}
    # `from package import module` is an import of the module, not of the empty package.
    return frozenset(name for name in found if not any(other.startswith(f'{name}.') for other in found))


def floor(module):
    parts = module.split('.')
    if len(parts) == 1:
        return 0
    if module in MODULES_OF_COMMANDS and parts[1] in FLOORS:
        return PROGRAMS
    if parts[1] in DOORS or parts[-1] in DOORS:
        return PROGRAMS + 2
    if parts[1] in FLOORS:
        return FLOORS[parts[1]]
    return PROGRAMS + (parts[1] in ABOVE_TRAIN)


@cache
def chain(module, above=()):
    """Returns the longest chain of imports from a module on; a cycle fails."""
    assert module not in above, f'import cycle: {" -> ".join([*above, module])}'
    return 1 + max((chain(name, (*above, module)) for name in imports(module)), default=0)


# What a file imports by a name in a string, at a moment when the other is surely wanted; and why it may.
BY_NAME = {
    ('cvresearch.base.overrides', 'cvresearch.engine.arguments'): 'what constructors take, if a file is silent',
}


@pytest.mark.parametrize('module', MODULES)
def test_imports_by_name_go_down_too(module):
    calls = (node for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.Call))
    loads = [call for call in calls if ast.unparse(call.func).endswith('import_module') and call.args]
    for name in (call.args[0].value for call in loads if isinstance(call.args[0], ast.Constant)):
        assert floor(name) < floor(module) or (module, name) in BY_NAME, f'{module} imports {name} by name'


@pytest.mark.parametrize('module', MODULES)
def test_a_file_imports_only_from_lower_floors_or_its_own_room(module):
    room = module.split('.')[:2]
    for name in imports(module):
        if name in MODULES_OF_COMMANDS:
            assert floor(module) >= PROGRAMS, f'{module} imports the command {name}'
        assert name.split('.')[:2] == room or floor(name) < floor(module), f'{module} imports {name}'


def lines_of_code(path):
    """Returns how many statements a file has at its top, without its docstring."""
    body = ast.parse(path.read_text()).body
    return len(body) - (isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant))


def test_there_are_few_programs():
    programs = {path.stem for path in (ROOT / 'cvresearch').glob('*.py')} - {'__init__', '__main__'}
    assert len(programs) <= 8, sorted(programs)
    assert len((ROOT / 'cvresearch/train.py').read_text().splitlines()) <= 150  # the loop, to be read in one go


@pytest.mark.parametrize('path', sorted((ROOT / 'cvresearch/former').glob('*.py')), ids=lambda path: path.stem)
def test_a_former_name_is_a_line_that_says_the_new_one(path):
    assert lines_of_code(path) <= 2


@pytest.mark.parametrize('words', COMMANDS)
def test_a_command_is_a_module_with_a_main(words):
    module = COMMANDS[words][0]
    path = MODULES.get(module) or ROOT / f'{module.replace(".", "/")}.py'
    assert 'main' in {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    'module', [m for m in MODULES if m.startswith('cvresearch.models.') and not m.endswith(NO_MODELS)]
)
def test_models_import_no_sibling(module):
    siblings = {name for name in imports(module) if name.startswith('cvresearch.models')}
    assert siblings <= {'cvresearch.models.names', 'cvresearch.models.variant'}


# Blocks of a net may lie stacked in one entry. Who knows of it, beside nn/stacked.py: the nets that are so made, what
# takes any net apart, what leaves or enters a run's state, and what goes by the names of parameters.
OF_STACKED_NETS = {
    *(f'cvresearch.models.{name}' for name in ('preact_resnet', 'resnet_cifar', 'wide_resnet')),
    'cvresearch.nn.overrides',
    'cvresearch.inspect.cost',
    'cvresearch.interop.conversion',
    'cvresearch.engine.checkpoint',
    'cvresearch.engine.recipes',
    'cvresearch.engine.warm_start',
    'cvresearch.evaluation.layers',
    'cvresearch.benchmark',
}
OF_NAMES_OF_BLOCKS = {
    'cvresearch.base.mesh',
    'cvresearch.optim.param_filters',
    'cvresearch.engine.freezing',
    'cvresearch.nn.stacked',
}


def test_few_files_know_of_stacked_blocks():
    assert {module for module in MODULES if 'cvresearch.nn.stacked' in imports(module)} == OF_STACKED_NETS


def own_means(module):
    """Yields what a file has from `base/trees.py`, and the arguments of nets that it asks for or sets."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and node.module == 'cvresearch.base.trees':
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == 'trees':
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(('.clone', 'hasattr', 'getattr')):
            values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from (f'{name} of a net' for name in [*values, *(keyword.arg for keyword in node.keywords)])


@pytest.mark.parametrize('module', sorted(MODULES.keys() - OF_NAMES_OF_BLOCKS - {'cvresearch.base.trees'}))
def test_no_other_file_tells_stacked_blocks_by_its_own_means(module):
    telling = {'STACKED', 'is_stacked', 'block_names', 'scan of a net', 'stacked of a net'}
    assert not telling & set(own_means(module))


def test_chains_are_short_and_there_is_no_cycle():
    lengths = {module: chain(module) for module in MODULES}
    assert max(lengths.values()) <= 12, max(lengths, key=lengths.get)


@pytest.mark.parametrize(
    ('modules', 'absent'),
    [
        ('cvresearch.main, cvresearch.train, cvresearch.evaluate, cvresearch.inspect.summary', 'tensorflow'),
        ('cvresearch.data.sources, cvresearch.data.stream', 'jax'),
        ('configs.lenet5_mnist5k', 'jax'),
    ],
)
def test_what_is_never_imported(modules, absent):
    code = f'import {modules}; import sys; sys.exit({absent!r} in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


# Functions of text files, and which argument by position is the encoding.
TEXT_FILES = {'read_text': 0, 'write_text': 1, 'open': None}


def without_encoding(path):
    """Yields the lines of a file that read or write text in whatever encoding the locale has."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        name = ast.unparse(node.func).split('.')[-1] if isinstance(node, ast.Call) else ''
        if name not in TEXT_FILES or any(keyword.arg in ('encoding', None) for keyword in node.keywords):
            continue
        if name == 'open':
            modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            own = ast.unparse(node.func) in ('open', 'path.open', 'file.open') and not any('b' in str(m) for m in modes)
            if own:
                yield node.lineno
        elif len(node.args) <= TEXT_FILES[name]:
            yield node.lineno


@pytest.mark.parametrize('room', ['cvresearch', 'launch', 'configs'])
def test_text_is_utf_8_whatever_the_locale(room):
    found = [f'{path}:{line}' for path in sorted((ROOT / room).rglob('*.py')) for line in without_encoding(path)]
    assert not found
