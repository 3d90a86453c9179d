"""The table of cases in docs/data.md names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_each_case_in_the_docs_has_its_test():
    named = re.findall(r'\| `(test_\w+\.py)` `(test_\w+)` \|', (ROOT.parent / 'docs/data.md').read_text())
    assert len(named) > 20
    for file, test in named:
        assert any(f'def {test}(' in path.read_text() for path in ROOT.rglob(file)), (file, test)
