"""The heatmap of an image, blended over the image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from bundle.conformal import Region, in_colour
from bundle.imaging import Pixels

OPACITY = 0.75  # of the largest heat: what lies below it can still be recognised
COURSE = (80, 235)  # levels of the colour map that are taken: neither black nor nearly white
LINE = 1 / 300  # width of an outline, of the image's shorter side
LIGHT, DARK = "white", "black"


def draw(image: Pixels, heatmap: Pixels, regions: Sequence[Region]) -> Pixels:
    """The heatmap over an image, with the regions outlined.

    `image` is uint8 (height, width, 1 or 3) and `heatmap` uint8 (height, width). The opacity grows
    with the heat, so that normal areas stay as they are.
    """
    below = Image.fromarray(np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image)
    above = Image.fromarray(_COLOURS[heatmap])
    drawn = Image.composite(above, below, Image.fromarray(_OPACITIES[heatmap]))
    for region in regions:
        _outline(drawn, region)
    return np.asarray(drawn)


def _outline(image: Image.Image, region: Region) -> None:
    """Draw a light line around the region, with a dark edge: one of the two shows on any ground."""
    line = max(1, round(min(image.size) * LINE))
    pen = ImageDraw.Draw(image)
    for distance, colour in ((2 * line, DARK), (line, LIGHT)):
        left, top = max(0, region.x - distance), max(0, region.y - distance)
        right = min(image.width, region.x + region.width + distance) - 1
        bottom = min(image.height, region.y + region.height + distance) - 1
        pen.rectangle((left, top, right, bottom), outline=colour, width=line)


_COLOURS: Pixels = in_colour(np.rint(np.linspace(*COURSE, 256)).astype(np.uint8))
_OPACITIES: Pixels = np.rint(np.arange(256) * OPACITY).astype(np.uint8)
