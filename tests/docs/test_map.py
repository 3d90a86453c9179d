"""The map of the house names files that exist, and every room."""

import re
from pathlib import Path

ROOT = Path('cvresearch')
ROOMS = re.findall(r'^\| (\d+) \| `cvresearch/(\w*)/?` \| (.*) \|$', Path('WORKSPACE.md').read_text('utf-8'), re.M)


def absent(room, text):
    """Returns the names in a row of the map that are neither a file of the room, nor of another, nor a function."""
    names = re.findall(r'`([a-z]\w*)`', text)
    own = {path.stem for path in (ROOT / room).glob('*.py')}
    functions = ' '.join(path.read_text() for path in (ROOT / room).glob('*.py'))
    return [
        name
        for name in names
        if name not in own and not re.search(rf'def {name}\(', functions) and not (ROOT / name).is_dir()
    ]


def test_every_room_and_every_named_file_is_there():
    assert {room for _, room, _ in ROOMS} >= {path.parent.name for path in ROOT.glob('*/__init__.py')}
    for _, room, text in ROOMS:
        assert not absent(room, text), room
    assert absent('base', 'has `no_such_file`') == ['no_such_file']


def test_every_path_in_the_recipes_is_there():
    text = Path('CONTRIBUTING.md').read_text(encoding='utf-8') + Path('WORKSPACE.md').read_text(encoding='utf-8')
    paths = re.findall(r'`([\w/]+\.(?:py|toml|csv|md))(?::\w+)?`', text)
    roots = (Path(), *(ROOT / room for room in ('', 'models', 'report')), Path('configs'), Path('tests'))
    assert len(paths) > 10 and not [path for path in paths if not any((root / path).exists() for root in roots)]
