"""A small folder of real images: the stamps of Tux Paint, cut out on white, in a folder for each category.

    python -m tests.stamps OUT [/usr/share/tuxpaint/stamps]

The Debian package tuxpaint-stamps-default has them; they are not part of this project.
"""

import sys
from pathlib import Path

from PIL import Image

STAMPS = Path('/usr/share/tuxpaint/stamps')
CLASSES = dict(
    birds='animals/birds',
    flowers='plants/flowers',
    fruit='food/fruit',
    houses='town/houses',
    insects='animals/insects',
    mammals='animals/mammals',
    vegetables='food/vegetables',
)
SIDE = 256  # pixels of the longer side


def make(out: Path, stamps: Path = STAMPS) -> int:
    """Writes out/CLASS/NAME.png, RGB on white; returns how many."""
    count = 0
    for name, category in CLASSES.items():
        (out / name).mkdir(parents=True)
        for file in sorted((stamps / category).rglob('*.png')):
            image = Image.open(file).convert('RGBA')
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            white = Image.new('RGBA', image.size, 'white')
            white.alpha_composite(image)
            white.convert('RGB').save(out / name / '_'.join(file.relative_to(stamps / category).parts))
            count += 1
    return count


def main(argv: list[str]) -> int:
    """Makes the folder; returns the exit code."""
    if not argv or (not STAMPS.is_dir() and len(argv) < 2):
        raise SystemExit(f'expected a folder to make, and {STAMPS} (apt-get install tuxpaint-stamps-default)')
    print(f'{make(Path(argv[0]), *map(Path, argv[1:])):,} images in {len(CLASSES)} classes')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
