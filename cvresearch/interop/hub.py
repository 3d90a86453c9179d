"""Weights from the Hugging Face hub, as timm publishes them: safetensors and a config.json of how images are prepared.

Whatever the hub's cache has is used from there without a network; nothing but `.safetensors` and `.json` is fetched.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvresearch.base.errors import UserError
from cvresearch.data.preprocessing import INTERPOLATIONS, Preprocessing
from cvresearch.interop import shards

_REPOSITORY = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*')
_HASH = re.compile(r'[0-9a-f]{40}')
WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
# timm's defaults (timm/data/config.py, timm/data/constants.py).
_DEFAULTS: dict[str, Any] = dict(
    input_size=(3, 224, 224),
    interpolation='bicubic',
    crop_pct=0.875,
    crop_mode='center',
    mean=Preprocessing.mean,
    std=Preprocessing.std,
)


def fetch(repo: str, revision: str | None = None) -> tuple[list[Path], dict, str]:
    """Returns the files of weights of a repository, its config.json, and the full hash of the revision.

    Args:
      repo: 'timm/resnet50.a1_in1k'.
      revision: a commit's hash, a branch or a tag; the newest commit that is at hand if None: the one that the cache
        knows as `main`, else the hub's. Only a hash names the same weights forever.

    Returns:
      (files, config, hash): one file of safetensors, or the index of several and then these.

    Raises:
      UserError: no such repository, revision or file; huggingface_hub is not installed; or neither the cache has it
        nor a network is there.
    """
    if not _REPOSITORY.fullmatch(repo):
        raise UserError(f'hub:{repo} is no repository; expected OWNER/NAME, such as hub:timm/resnet50.a1_in1k')
    get = _getter(repo, revision or 'main')
    path = get('config.json')
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f'hub:{repo}: its config.json is no JSON: {error}') from error
    # The rest is of the same commit, also where a branch moves meanwhile.
    commit = path.parent.name
    get = _getter(repo, commit if _HASH.fullmatch(commit) else revision or 'main')
    weights = get(WEIGHTS, or_none=True)
    if weights is not None:
        return [weights], config, commit
    index = get(INDEX, or_none=True)
    if index is None:
        raise UserError(f'hub:{repo}@{commit[:12]} has no {WEIGHTS}; files of other formats are not fetched')
    try:
        parts = sorted(set(shards.names(index).values()))
    except ValueError as error:
        raise UserError(f'hub:{repo}: {INDEX}: {error}') from error
    if not all(part.endswith('.safetensors') for part in parts):
        raise UserError(f'hub:{repo}: {INDEX} names other files than of safetensors, which are not fetched')
    return [index, *(get(part) for part in parts)], config, commit


def _getter(repo: str, revision: str) -> Callable:
    """Returns a function that gives a file's path in the cache, and fetches it first where it is not there."""
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise UserError(f"hub:{repo} needs the package huggingface_hub: pip install 'cvresearch[hub]'") from error
    where = f'hub:{repo}@{revision}'

    def get(name: str, or_none: bool = False) -> Path | None:
        cached = hub.try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        if or_none and cached is not None:  # the cache knows that there is no such file
            return None
        try:
            return Path(hub.hf_hub_download(repo, name, revision=revision))
        except errors.LocalEntryNotFoundError as error:  # first: it is an EntryNotFoundError too
            if or_none and constants.HF_HUB_OFFLINE:
                return None
            why = 'HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else 'the hub cannot be reached'
            raise UserError(f'{where}: {name} is not in the cache, and {why}') from error
        except errors.EntryNotFoundError as error:
            if or_none:
                return None
            raise UserError(f'{where} has no {name}') from error
        except errors.RevisionNotFoundError as error:
            raise UserError(f'hub:{repo} has no revision {revision!r}') from error
        except errors.RepositoryNotFoundError as error:
            raise UserError(f'hub:{repo} is not on the hub, or is private and no login is stored') from error
        except Exception as error:  # of the network, in whatever library fetches
            first = f'{error}'.strip().partition('\n')[0]
            raise UserError(f'{where}: {name} cannot be fetched ({type(error).__name__}: {first})') from error

    return get


def reference_of(repo: str) -> str:
    """Returns 'timm/resnet50.a1_in1k' for that repository of timm and for a copy of it by anybody else."""
    return f'timm/{repo.partition("/")[2]}'


def preprocessing_of(config: dict) -> tuple[Preprocessing, tuple[str, ...] | None]:
    """Returns how a net's images are prepared by its config.json, and the names of its classes if it has them.

    The same as timm's `resolve_data_config` and its transform for evaluation make of the file: the size of training.
    `Preprocessing.as_published` is what they make of it with `use_test_size`, as timm's published accuracies do.

    Args:
      config: the content of config.json.

    Raises:
      UserError: a value that makes no sense, or a preparation that is not known here.
    """
    values = pretrained(config)
    settings = {key: values[key] if values.get(key) else default for key, default in _DEFAULTS.items()}
    crop, resize = _sides(settings)
    test = _sides(
        settings | {key: values[f'test_{key}'] for key in ('input_size', 'crop_pct') if values.get(f'test_{key}')}
    )
    try:
        mean, std = (tuple(map(float, settings[key])) for key in ('mean', 'std'))
    except (TypeError, ValueError) as error:
        raise UserError(f'config.json: its pretrained_cfg makes no sense ({error})') from error
    if (len(mean), len(std)) != (3, 3) or 0.0 in std:
        raise UserError(f'config.json: mean {list(mean)}, std {list(std)}; expected those of three channels')
    if settings['interpolation'] not in INTERPOLATIONS:
        raise UserError(
            f'config.json: interpolation {settings["interpolation"]!r}; expected one of {", ".join(INTERPOLATIONS)}'
        )
    mode = settings['crop_mode']
    if mode not in ('center', 'squash', 'border'):
        raise UserError(f"config.json: crop_mode {mode!r}; expected 'center', 'squash' or 'border'")
    test_crop, test_resize = (0, 0) if test == (crop, resize) else test
    return Preprocessing(
        crop,
        resize,
        settings['interpolation'],
        mean,
        std,
        squash=mode == 'squash',
        border=mode == 'border',
        test_crop=test_crop,
        test_resize=test_resize,
    ), class_names(values)


def _sides(settings: dict) -> tuple[int, int]:
    """Returns the side of the crop, and of the image before it."""
    try:
        channels, height, width = map(int, settings['input_size'])
        resize = math.floor(height / float(settings['crop_pct']))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f'config.json: its pretrained_cfg makes no sense ({error})') from error
    if channels != 3 or height != width or not 1 <= height <= resize:
        raise UserError(
            f'config.json: input_size {list(settings["input_size"])} with crop_pct {settings["crop_pct"]}; expected a '
            'square of three channels, cut out of an image as large or larger'
        )
    return height, resize


def pretrained(config: dict) -> dict:
    """Returns the `pretrained_cfg` of a config.json in either form (older ones have its keys at the top).

    Raises:
      UserError: it is no such file.
    """
    inner = config.get('pretrained_cfg', config) if isinstance(config, dict) else None
    if not isinstance(inner, dict) or not isinstance(config.get('architecture'), str):
        raise UserError("config.json is not as timm writes it: it has no 'architecture', or no 'pretrained_cfg'")
    above = {key: config[key] for key in ('num_classes', 'label_names', 'label_descriptions') if key in config}
    names = {'label_names': inner['labels']} if 'labels' in inner else {}
    return names | inner | above


def class_names(values: dict) -> tuple[str, ...] | None:
    """Returns the names of a net's classes, in the order of its logits; None if the file has none.

    Raises:
      UserError: they are not names, or not as many as the classes.
    """
    names = values.get('label_names')
    if not names:
        return None
    names = list(names)
    if not all(isinstance(name, str) for name in names) or values.get('num_classes', len(names)) != len(names):
        raise UserError(f'config.json: label_names has {len(names)} entries for {values.get("num_classes")} classes')
    return tuple(names)
