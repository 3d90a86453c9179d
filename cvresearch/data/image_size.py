"""One number for the size of images, wherever a configuration says it: `--config.image_size=64`."""

import inspect

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError

CROP = 224  # what crops take where a configuration says nothing (crops.py)
RESIZED = 256  # the length of the short side before, likewise


def image_size(config, size: int) -> None:
    """Sets the side of all images, in pixels, in a configuration that is not locked.

    Photographs: of the crops of training and of evaluation alike; lengths of the short side before a crop grow with
    it. Arrays: of the source, if it can make images of any size. Progressive resizing ends at this size, and begins at
    the same part of it as before.

    Raises:
      UserError: less than 1; images that keep the size of their files.
    """
    if size < 1:
        raise UserError(f'config.image_size is {size}; expected at least 1 pixel')
    if config.transform:
        for part in ('train', 'eval'):
            _set_crop(config.transform, part, size)
    else:
        _set_source(config, size)
    if config.resize.get('name', 'none') != 'none':
        _set_stages(config.resize, size)


def _set_crop(transform, part: str, size: int) -> None:
    if part not in transform:
        return
    if 'crop' not in transform[part]:
        transform[part].crop = dict(name='random_resized_crop')
    crop = transform[part].crop
    lengths = {'resize_random_crop': ('low', 'high'), 'resize_center_crop': ('resize',)}.get(crop.get('name'), ())
    for key in lengths:
        crop[key] = max(round(crop.get(key, RESIZED) * size / crop.get('size', CROP)), size)
    crop.size = size


def _set_source(config, size: int) -> None:
    from cvresearch.data import sources  # loads OpenCV

    name, table = config.data.get('name'), sources.table()
    if name in table and 'image_size' not in inspect.signature(table[name]).parameters:
        raise UserError(
            f'config.image_size: the images of data {name!r} have the size of their files; expected data that are made '
            'at any size (mnist5k, digits, fake), or photographs with a config.transform'
        )
    around = 2 * config.data.get('pad', 0)
    if size <= around:
        raise UserError(f'config.image_size is {size}, and config.data.pad puts {around} pixels around the images')
    config.data.image_size = size - around
    if config.augment.get('resize', 0):
        config.augment.resize = size


def _set_stages(resize: ConfigDict, size: int) -> None:
    from cvresearch.data.resizing import RESIZINGS

    if resize.name in RESIZINGS:
        first, last = resize.get('size') or inspect.signature(RESIZINGS[resize.name]).parameters['size'].default
        resize['size'] = (max(round(first * size / last), 1), size)
