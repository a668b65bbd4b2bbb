"""Heatmaps: brightness and regions of an error map, and its picture over the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bundle.manifest import ErrorMapScale
from bundle.tensors import Floats, Pixels

OPACITY = 0.75  # of the largest heat: what lies below it can still be recognised
COURSE = (80, 235)  # levels of the colour map that are taken: neither black nor nearly white
LINE = 1 / 300  # width of an outline, of the image's shorter side
LIGHT, DARK = "white", "black"


@dataclass(frozen=True)
class Region:
    """A box of high error: pixel coordinates of its top-left corner, its size, and the largest error in it."""

    x: int
    y: int
    width: int
    height: int
    score: float


def heat(error_map: Floats, scale: ErrorMapScale) -> npt.NDArray[np.uint8]:
    """Brightness of each pixel, (height, width) -> uint8: 0 is usual in normal images, 255 is found in few."""
    brightness = np.clip((error_map - scale.low) / (scale.high - scale.low), 0, 1)
    return np.asarray(np.rint(brightness * 255), dtype=np.uint8)


def in_colour(heatmap: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A heatmap (height, width) as RGB (height, width, 3): from black to pale yellow."""
    colours: npt.NDArray[np.uint8] = _COLOUR_MAP[heatmap]
    return colours


def regions(error_map: Floats, scale: ErrorMapScale, limit: int = 16) -> list[Region]:
    """The boxes around 4-connected areas that are at least half bright, strongest first, `limit` at the most."""
    hot = error_map >= (scale.low + scale.high) / 2
    labels = _label(hot)
    found = []
    for label in np.unique(labels[hot]):
        ys, xs = np.nonzero(labels == label)
        x, y = int(xs.min()), int(ys.min())
        box = Region(x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1, float(error_map[ys, xs].max()))
        found.append(box)
    return sorted(found, key=lambda region: -region.score)[:limit]


def _label(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Number the 4-connected areas of the mask from 1: each pixel takes its neighbours' largest until stable."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        neighbours = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:], labels]
        spread = np.where(mask, np.maximum.reduce(neighbours), 0)
        if np.array_equal(spread, labels):
            return labels
        labels = spread


def draw(image: Pixels, heatmap: Pixels, regions: Sequence[Region]) -> Pixels:
    """The heatmap over an image, with the regions outlined.

    `image` is uint8 (height, width, 1 or 3) and `heatmap` uint8 (height, width). The opacity grows
    with the heat, so that normal areas stay as they are.
    """
    below = Image.fromarray(np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image)
    above = Image.fromarray(_OVERLAY_COLOURS[heatmap])
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


def _colour_map() -> npt.NDArray[np.uint8]:
    """256 RGB colours of evenly rising lightness, which colour-blind people tell apart by it.

    The course is that of matplotlib's inferno (Smith and van der Walt 2015), by nine stops.
    """
    stops = np.array(_STOPS)
    levels, places = np.arange(256), np.linspace(0, 255, len(stops))
    channels = [np.rint(np.interp(levels, places, values)) for values in stops.T]
    return np.stack(channels, axis=-1).astype(np.uint8)


_STOPS = (
    (0, 0, 0),
    (33, 12, 74),
    (87, 16, 110),
    (138, 34, 106),
    (188, 55, 84),
    (228, 90, 49),
    (249, 142, 9),
    (249, 203, 53),
    (252, 255, 164),
)
_COLOUR_MAP = _colour_map()
_OVERLAY_COLOURS: Pixels = in_colour(np.rint(np.linspace(*COURSE, 256)).astype(np.uint8))
_OPACITIES: Pixels = np.rint(np.arange(256) * OPACITY).astype(np.uint8)
