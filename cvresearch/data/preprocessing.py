"""From a photograph to a net's input, as the publishers of each set of weights evaluate it.

What is stored beside a file of weights, FILE.json, overrides the table here:
{"resize": 232, "crop": 224, "interpolation": "bilinear", "mean": [...], "std": [...]}.
"""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from cvresearch.base.errors import UserError, check_keys

INTERPOLATIONS = {
    'nearest': Image.Resampling.NEAREST, 'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC,
}  # fmt: skip
