"""Names of other libraries' tensors, as tables beside the nets."""

import functools
import re
from collections.abc import Iterable, Mapping

# {i}, {i+1}, {i-1}, {i:a}, {layer}
_FIELD = re.compile(r'\{([a-z]+)(?:([+-]\d+)|:([a-z]))?\}')


class Names:
    """A table from our module paths to the names that another library gives the modules.

    In a path of ours {i}, of one letter, stands for a number, and {layer}, of several, for a word. The library's name
    has the same in braces, a number also counted from elsewhere, {i+1} or {i-1}, or in letters, from a as {i:a}.
    Of the entries that fit the first counts; one without braces goes before all others.

    >>> Names({'head': 'fc', 'stage{i}_block{j}/conv{n}': 'layer{i}.{j:a}.conv{n-1}'})('stage2_block1/conv3')
    'layer2.b.conv2'
    """

    def __init__(self, *tables: Mapping[str, str]):
        self.table: dict[str, str] = {}
        for table in tables:
            self.table |= {ours: theirs for ours, theirs in table.items() if ours not in self.table}
        self._patterns = [(_pattern(ours), theirs) for ours, theirs in self.table.items() if '{' in ours]

    def __call__(self, path: str) -> str:
        """Returns the library's name of a module path of ours.

        Raises:
          KeyError: no entry fits.
        """
        if path in self.table:
            return self.table[path]
        for pattern, theirs in self._patterns:
            if match := pattern.fullmatch(path):
                return _FIELD.sub(functools.partial(_filled, match), theirs)
        raise KeyError(f'no name for {path!r}')


def within(ours: str, theirs: str, names: Mapping[str, str]) -> dict[str, str]:
    """Returns a table with these beginnings before our paths and before the library's names."""
    return {f'{ours}{path}': f'{theirs}{name}' for path, name in names.items()}


def numbered(beginnings: Iterable[str]) -> dict[str, str]:
    """Returns Keras's names of nameless convolutions and batch norms, which it counts as it makes them.

    Args:
      beginnings: of our paths, in Keras's order: 'stem_0/' for 'stem_0/conv' and 'stem_0/bn'.
    """
    kinds = {'conv': 'conv2d', 'bn': 'batch_normalization'}
    return {
        f'{beginning}{ours}': f'{theirs}_{number}' if number else theirs
        for number, beginning in enumerate(beginnings)
        for ours, theirs in kinds.items()
    }


def timm_inverted(squeeze: str = 'squeeze') -> Names:
    """Returns timm's names of nets of inverted residuals (its `efficientnet.py`), whose first stage expands nothing.

    Args:
      squeeze: how our names of the two layers of squeeze-and-excitation begin.
    """
    return Names(
        {'stem_conv': 'conv_stem', 'stem_bn': 'bn1', 'last_conv': 'conv_head', 'last_bn': 'bn2', 'head': 'classifier'},
        within(
            'stage1_block{j}/',
            'blocks.0.{j}.',
            {
                'depthwise_bn': 'bn1',
                'project_conv': 'conv_pw',
                'project_bn': 'bn2',
            },
        ),
        within(
            'stage{i}_block{j}/',
            'blocks.{i-1}.{j}.',
            {
                'expand_conv': 'conv_pw',
                'expand_bn': 'bn1',
                'depthwise_conv': 'conv_dw',
                'depthwise_bn': 'bn2',
                f'{squeeze}_reduce': 'se.conv_reduce',
                f'{squeeze}_expand': 'se.conv_expand',
                'project_conv': 'conv_pwl',
                'project_bn': 'bn3',
            },
        ),
    )


def _pattern(ours: str) -> re.Pattern[str]:
    def group(field: re.Match[str]) -> str:
        return f'(?P<{field[1]}>' + (r'\d+)' if len(field[1]) == 1 else r'\w+)')

    return re.compile(_FIELD.sub(group, ours))


def _filled(match: re.Match[str], field: re.Match[str]) -> str:
    name, offset, letter = field.groups()
    if letter:
        return chr(ord(letter) + int(match[name]))
    return str(int(match[name]) + int(offset)) if offset else match[name]
