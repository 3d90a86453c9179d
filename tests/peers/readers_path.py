"""Follows docs/evidence/readers_path.md literally, in a fresh clone, and times it: python -m tests.peers.readers_path.

Each block of the page runs as it stands, in one bash after another, each of which activates the environment first if
there is one. The record is docs/records/readers_path.json.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cvresearch.base import records

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/evidence/readers_path.md'
RECORD = ROOT / 'docs/records/readers_path.json'
WORDS_A_MINUTE = 200


def steps(page: str) -> list[tuple[str, str, str]]:
    """Returns (title, all of its text, its commands) of each section of a page with a block of the shell."""
    sections = re.findall(r'^## (.*?)\n(.*?)(?=^## |\Z)', page, re.S | re.M)
    found = [(title, text, '\n'.join(re.findall(r'```bash\n(.*?)```', text, re.S))) for title, text in sections]
    return [step for step in found if step[2]]


def reading(text: str) -> float:
    """Returns the seconds that reading takes."""
    return 60 * len(text.split()) / WORDS_A_MINUTE


def main() -> int:
    """Writes the record; returns the exit code of the first command that fails, else 0."""
    first_screen = (ROOT / 'README.md').read_text(encoding='utf-8').partition('## What nobody else has')[0]
    page = PAGE.read_text(encoding='utf-8')
    rows = [{'step': 'Read the README', 'reading, s': round(reading(first_screen)), 'running, s': 0}]
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, 'cvresearch')
        began = time.monotonic()
        subprocess.run(['git', 'clone', '-q', str(ROOT), str(clone)], check=True)
        rows.append({'step': 'Clone', 'reading, s': 0, 'running, s': round(time.monotonic() - began)})
        outside = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'VIRTUAL_ENV')}
        outside |= {'XDG_CACHE_HOME': f'{folder}/cache'}  # nothing is compiled yet
        for title, text, commands in steps(page):
            active = 'source .venv/bin/activate\n' * (clone / '.venv').exists()
            began = time.monotonic()
            done = subprocess.run(['bash', '-euc', active + commands], cwd=clone, env=outside)
            if done.returncode:
                print(f'{title}: exit code {done.returncode}', file=sys.stderr)
                return done.returncode
            took = time.monotonic() - began
            rows.append({'step': title, 'reading, s': round(reading(text)), 'running, s': round(took)})
            print(rows[-1], flush=True)
        card = json.loads((clone / 'runs/photos/run.json').read_text())
    total = {'step': 'all', **{key: sum(row[key] for row in rows) for key in ('reading, s', 'running, s')}}
    final = {key: card['final']['test'][key] for key in ('top1', 'n_seen')}
    records.write_measurement(RECORD, [*rows, total], test=final)
    return 0


if __name__ == '__main__':
    sys.exit(main())
