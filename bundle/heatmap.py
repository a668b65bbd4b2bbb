"""Heatmaps: brightness and regions of an error map, and its picture over the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bundle.manifest import ErrorMapScale
from bundle.tensors import Floats, Pixels

Ints = npt.NDArray[np.intp]

OPACITY = 0.75  # of the largest heat: the image below it stays visible
OVERLAY_LEVELS = (80, 235)  # levels of the colour map in use: neither black nor nearly white
OUTLINE_WIDTH_SHARE = 1 / 300  # width of an outline, relative to the image's shorter side
OUTLINE_COLOUR, EDGE_COLOUR = "white", "black"


@dataclass(frozen=True)
class Region:
    """A box of high error: its top-left corner and size in pixels, and the largest error in it."""

    x: int
    y: int
    width: int
    height: int
    score: float

    def scale(self, old: tuple[int, ...], new: tuple[int, ...]) -> "Region":
        """The same box in its image resized from old to new, (height, width), rounded outwards."""
        down, across = new[0] / old[0], new[1] / old[1]
        left, top = int(self.x * across), int(self.y * down)
        right = -int(-(self.x + self.width) * across // 1)
        bottom = -int(-(self.y + self.height) * down // 1)
        width, height = min(right, new[1]) - left, min(bottom, new[0]) - top
        return Region(left, top, width, height, self.score)


def compute_brightness(error_map: Floats, scale: ErrorMapScale) -> Pixels:
    """Brightness of each pixel, (height, width) -> uint8: 0 in most normal images, 255 in few."""
    brightness = np.clip((error_map - scale.low) / (scale.high - scale.low), 0, 1)
    return np.asarray(np.rint(brightness * 255), dtype=np.uint8)


def apply_colours(heatmap: Pixels) -> Pixels:
    """A heatmap (height, width) as RGB (height, width, 3): from black to pale yellow."""
    colours: Pixels = _COLOUR_MAP[heatmap]
    return colours


def find_regions(error_map: Floats, scale: ErrorMapScale, limit: int = 16) -> list[Region]:
    """Boxes around the strongest 4-connected areas that are at least half bright."""
    rows, starts, stops = _find_runs(error_map >= (scale.low + scale.high) / 2)
    if not len(rows):
        return []
    areas, count = _join_runs(rows, starts, stops)
    left, top, score = (np.full(count, np.inf) for _ in range(3))
    right, bottom = np.zeros(count), np.zeros(count)
    np.minimum.at(left, areas, starts)
    np.maximum.at(right, areas, stops)
    np.minimum.at(top, areas, rows)
    np.maximum.at(bottom, areas, rows + 1)
    np.minimum.at(score, areas, -_find_largest(error_map, rows, starts, stops))
    strongest = np.argsort(score, kind="stable")[:limit]
    boxes = np.stack([left, top, right - left, bottom - top], axis=1)[strongest].astype(int)
    return [
        Region(x, y, width, height, -float(score[area]))
        for (x, y, width, height), area in zip(boxes.tolist(), strongest, strict=True)
    ]


def _find_runs(mask: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Horizontal runs of true pixels: the row, the first column and the end column of each."""
    changes = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(changes == 1)
    return rows, starts, np.nonzero(changes == -1)[1]


def _find_largest(values: Floats, rows: Ints, starts: Ints, stops: Ints) -> Floats:
    """The largest value of each run."""
    bounds = np.stack([starts, stops], axis=1) + rows[:, None] * values.shape[1]
    largest: Floats = np.maximum.reduceat(np.append(values, 0), bounds.ravel())[::2]
    return largest


def _join_runs(rows: Ints, starts: Ints, stops: Ints) -> tuple[Ints, int]:
    """The area of each run, and the number of areas, by union-find over touching runs."""
    parents = list(range(len(rows)))

    def find(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    width = int(stops.max(initial=0)) + 1  # so that positions of two rows never overlap
    first = np.searchsorted(rows * width + stops, (rows + 1) * width + starts, side="right")
    behind = np.searchsorted(rows * width + starts, (rows + 1) * width + stops, side="left")
    for run, (low, high) in enumerate(zip(first.tolist(), behind.tolist(), strict=True)):
        for touching in range(low, high):
            one, other = find(run), find(touching)
            parents[min(one, other)] = max(one, other)
    names, areas = np.unique([find(run) for run in range(len(rows))], return_inverse=True)
    return areas, len(names)


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
    line = max(1, round(min(image.size) * OUTLINE_WIDTH_SHARE))
    pen = ImageDraw.Draw(image)
    for distance, colour in ((2 * line, EDGE_COLOUR), (line, OUTLINE_COLOUR)):
        left, top = max(0, region.x - distance), max(0, region.y - distance)
        right = min(image.width, region.x + region.width + distance) - 1
        bottom = min(image.height, region.y + region.height + distance) - 1
        pen.rectangle((left, top, right, bottom), outline=colour, width=line)


def _build_colour_map() -> Pixels:
    """256 RGB colours of evenly rising lightness, distinguishable to colour-blind people.

    It follows matplotlib's inferno (Smith and van der Walt 2015), by nine stops.
    """
    stops = np.array(_STOPS)
    levels, positions = np.arange(256), np.linspace(0, 255, len(stops))
    channels = [np.rint(np.interp(levels, positions, values)) for values in stops.T]
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
_COLOUR_MAP = _build_colour_map()
_OVERLAY_COLOURS: Pixels = apply_colours(
    np.rint(np.linspace(*OVERLAY_LEVELS, 256)).astype(np.uint8)
)
_OPACITIES: Pixels = np.rint(np.arange(256) * OPACITY).astype(np.uint8)
