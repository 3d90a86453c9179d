"""Why a net says so, as a picture: Grad-CAM laid over the pixels that the net sees."""

import io

import cv2
import numpy as np
from PIL import Image

from cvresearch.inspect import class_activation, placing
from cvresearch.interop.classifier import Classifier

SHARE = 0.6  # of the map's colour in the picture
SIDE = 448  # pixels that the picture has at least


def picture(net: Classifier, pixels: np.ndarray, number: int) -> tuple[bytes, bool]:
    """Returns a PNG of the pixels in grey with the map of a class over them, and whether anything speaks for it.

    The picture is a whole multiple of the pixels, so that small images are seen as they are.

    Args:
      net: the classifier.
      pixels: as `net.prepare` gives them, uint8 (height, width, channels).
      number: of the class.

    Raises:
      UserError: the net has no map with height and width, or no such class.
    """
    class_map = class_activation.grad_cam(net.module, net.variables, net.normalize(pixels[None]), [number])
    grey = pixels.mean(-1)
    times = max(1, SIDE // max(grey.shape))
    grey = grey.repeat(times, 0).repeat(times, 1)
    (heat,) = placing.placed(class_map.map, (0, 0, *grey.shape), grey.shape)
    evidence = bool(class_map.has_evidence[0])
    shown = np.repeat(grey[..., None], 3, -1)
    if evidence:
        colours = cv2.applyColorMap((255 * heat / heat.max()).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        shown = SHARE * colours + (1 - SHARE) * shown
    file = io.BytesIO()
    Image.fromarray(shown.astype(np.uint8)).save(file, 'PNG')
    return file.getvalue(), evidence
