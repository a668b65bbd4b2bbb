"""Pictures of a detector: overlays, anomalies that were missed, histograms of scores, and ROC curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy import ndimage
from sklearn.metrics import roc_curve

from bundle import heatmap, imaging
from bundle.heatmap import Region, heat, regions
from bundle.manifest import Calibration, InputSpec
from training.evaluation.plots import DPI
from training.metrics.detection import auroc

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]

BOX = (320, 300)  # pixels, height and width that a shown image fits into
COLUMNS = 3
WORDS_WIDTH = 340  # pixels, of a verdict
NARROWEST = 220  # pixels of a column: titles need room
MARGIN, GAP, LINE_HEIGHT = 16, 12, 22  # pixels
TITLE_SIZE, TEXT_SIZE = 11, 10  # points

# Okabe and Ito 2008, "Color Universal Design": colour-blind people tell them apart.
BLACK, ORANGE, GREEN = "#000000", "#E69F00", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
MASK_COLOUR = (86, 180, 233)  # sky blue
STYLES = (
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, ":"),
    (PURPLE, "-."),
    (VERMILLION, (0, (5, 1, 1, 1, 1, 1))),
)
EDGE = 192  # grey of the line around an image, which may be white
BINS = 60
WIDEST = 8  # width of a histogram, in widths of all up to the highest threshold
TAIL = 0.98  # quantile of the scores of anomalous images, beyond which a histogram gathers them in its last bar


class Row(NamedTuple):
    """Pictures beside each other, under a title of a few lines."""

    title: str
    pictures: Sequence[Pixels]


def fit_into_box(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width at which an image of a size is shown: reduced, or enlarged by a whole number."""
    scale = min(BOX[0] / size[0], BOX[1] / size[1])
    scale = float(int(scale)) if scale >= 1 else scale
    return round(size[0] * scale), round(size[1] * scale)


def enlarge(image: Pixels, size: tuple[int, int], spec: InputSpec) -> Pixels:
    """An image (height, width, channels) at another size: square pixels where it is a multiple, else smooth."""
    down, across = (new // old for new, old in zip(size, image.shape, strict=False))
    if (image.shape[0] * down, image.shape[1] * across) == size:
        return image.repeat(down, axis=0).repeat(across, axis=1)
    return imaging.resize(image, size, spec)


def in_rgb(image: Pixels) -> Pixels:
    """An image (height, width, 1 or 3) with three channels."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def draw_overlay(
    image: Pixels, error_map: Floats, calibration: Calibration, spec: InputSpec
) -> Pixels:
    """The heatmap and the regions over an image (height, width, channels) of any size, as the service draws them."""
    scale, size = calibration.error_map, image.shape[:2]
    found = [_scaled(region, size, error_map.shape) for region in regions(error_map, scale)]
    return heatmap.draw(image, imaging.resize(heat(error_map, scale), size, spec), found)


def _scaled(region: Region, size: tuple[int, ...], of: tuple[int, ...]) -> Region:
    """The box in an image of `size`, rounded outwards; the region is in one of the size `of`."""
    down, across = size[0] / of[0], size[1] / of[1]
    left, top = int(region.x * across), int(region.y * down)
    right, bottom = (
        -int(-(region.x + region.width) * across // 1),
        -int(-(region.y + region.height) * down // 1),
    )
    return Region(left, top, min(right, size[1]) - left, min(bottom, size[0]) - top, region.score)


def draw_outline(image: Pixels, mask: Mask) -> Pixels:
    """An image (height, width, channels) with a blue line around what the mask (height, width) marks."""
    drawn = in_rgb(image).copy()
    inner = ndimage.binary_dilation(mask, iterations=3)
    drawn[ndimage.binary_dilation(inner) & ~mask] = 0
    drawn[inner & ~mask] = MASK_COLOUR
    return drawn


def draw_frame(image: Pixels, mask: Mask) -> Pixels:
    """An image (height, width, channels) with a blue frame at some distance from what the mask marks."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return in_rgb(image)
    distance = 6  # pixels: what is faint stays as it is
    framed = np.zeros_like(mask)
    framed[
        max(0, rows[0] - distance) : rows[-1] + distance,
        max(0, columns[0] - distance) : columns[-1] + distance,
    ] = 1
    return draw_outline(image, framed)


@dataclass(frozen=True)
class _Canvas:
    """A white picture in which images are placed pixel by pixel, and texts."""

    pixels: Pixels
    figure: Figure

    @classmethod
    def of(cls, height: int, width: int) -> "_Canvas":
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        return cls(np.full((height, width, 3), 255, np.uint8), figure)

    def place(self, image: Pixels, top: int, left: int) -> None:
        bottom, right = top + image.shape[0], left + image.shape[1]
        self.pixels[top - 1 : bottom + 1, left - 1 : right + 1] = EDGE
        self.pixels[top:bottom, left:right] = in_rgb(image)

    def write(self, text: str, top: int, left: int, **style: Any) -> None:
        height, width = self.pixels.shape[:2]
        options: dict[str, Any] = {"fontsize": TEXT_SIZE, "va": "top", "linespacing": 1.3}
        self.figure.text(left / width, 1 - top / height, text, **(options | style))

    def finish(self) -> Figure:
        self.figure.figimage(self.pixels, origin="upper")
        return self.figure


def table_of_overlays(heads: Sequence[str], rows: Sequence[Row]) -> Figure:
    """Rows of pictures under the heads of their columns, and the colour bar of the heatmaps below."""
    column = max(NARROWEST, *(picture.shape[1] for row in rows for picture in row.pictures))
    heights = [max(picture.shape[0] for picture in row.pictures) for row in rows]
    width = 2 * MARGIN + len(heads) * (column + GAP) - GAP
    head = MARGIN + LINE_HEIGHT
    canvas = _Canvas.of(head + sum(heights) + len(rows) * (LINE_HEIGHT + GAP) + _BAR_HEIGHT, width)
    lefts = [MARGIN + index * (column + GAP) for index in range(len(heads))]
    for left, text in zip(lefts, heads, strict=True):
        canvas.write(text, MARGIN // 2, left, fontsize=TITLE_SIZE, weight="bold")
    top = head
    for row, height in zip(rows, heights, strict=True):
        canvas.write(row.title, top, MARGIN)
        for left, picture in zip(lefts, row.pictures, strict=False):
            canvas.place(picture, top + LINE_HEIGHT, left)
        top += LINE_HEIGHT + height + GAP
    _draw_bar(canvas, top)
    return canvas.finish()


_BAR, _BAR_HEIGHT = 20, 2 * LINE_HEIGHT + 40  # pixels, of the colours and of all
_STEPS = 16


def _draw_bar(canvas: _Canvas, top: int) -> None:
    """The colours of all heat over middle grey, which is what a photograph may be."""
    width = canvas.pixels.shape[1] - 2 * MARGIN
    steps = (
        np.arange(width) * _STEPS // width
    )  # as a palette of few colours would make some of them anyway
    levels = np.broadcast_to((steps * 255 // (_STEPS - 1)).astype(np.uint8), (_BAR, width))
    ground = np.full((_BAR, width, 1), 128, np.uint8)
    middle, below = width // 2, top + _BAR + 14
    canvas.place(heatmap.draw(ground, levels, ()), top + 4, MARGIN)
    canvas.place(np.zeros((_BAR + 6, 2, 3), np.uint8), top + 4, MARGIN + middle)
    canvas.write("usual in normal images", below, MARGIN)
    canvas.write("boxed from here on", below, MARGIN + middle, ha="center")
    canvas.write("rare in normal images", below, MARGIN + width, ha="right")


def grid(cells: Sequence[Row]) -> Figure:
    """Cells of one picture each under a title of two lines, `COLUMNS` in a row."""
    column = max(NARROWEST, *(cell.pictures[0].shape[1] for cell in cells))
    height = max(cell.pictures[0].shape[0] for cell in cells)
    across, down = min(COLUMNS, len(cells)), -(-len(cells) // COLUMNS)
    step = height + 2 * LINE_HEIGHT + GAP
    canvas = _Canvas.of(MARGIN + down * step, 2 * MARGIN + across * (column + GAP) - GAP)
    for index, cell in enumerate(cells):
        top, left = MARGIN + index // COLUMNS * step, MARGIN + index % COLUMNS * (column + GAP)
        canvas.write(cell.title, top, left)
        canvas.place(cell.pictures[0], top + 2 * LINE_HEIGHT, left)
    return canvas.finish()


class Group(NamedTuple):
    """Scores of some images, for a histogram."""

    title: str
    scores: Floats
    colour: str


def histograms(groups: Sequence[Group], thresholds: Mapping[float, float]) -> Figure:
    """A histogram of each group on one axis of scores, and the threshold at each false positive rate."""
    figure = Figure(figsize=(9, 1.35 * len(groups) + 1.1), dpi=DPI, layout="constrained")
    panels = np.ravel(figure.subplots(len(groups), 1, sharex=True))
    least, most = _limits(groups, thresholds)
    for axes, group in zip(panels, groups, strict=True):
        axes.hist(
            np.clip(group.scores, least, most),
            np.linspace(least, most, BINS).tolist(),
            color=group.colour,
        )
        axes.set_title(f"{group.title}: {len(group.scores):,}", loc="left", fontsize=TEXT_SIZE)
        axes.set_ylabel("images", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        for (rate, threshold), style in zip(
            thresholds.items(), ("-", "--", "-.", ":", (0, (1, 4))), strict=False
        ):
            label = f"threshold at a rate of {rate}"
            axes.axvline(threshold, color=BLACK, linestyle=style, linewidth=1.2, label=label)
    panels[-1].set_xlabel("anomaly score (last bar: this and above)", fontsize=TEXT_SIZE)
    if thresholds:
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, fontsize=9, loc="outside upper left", ncols=3, frameon=False)
    return figure


def _limits(groups: Sequence[Group], thresholds: Mapping[float, float]) -> tuple[float, float]:
    """The least score, and one below which most scores are, if the thresholds are apart from each other then."""
    least = min(float(group.scores.min()) for group in groups)
    most = max(float(np.quantile(group.scores, TAIL)) for group in groups)
    if thresholds:
        highest = max(thresholds.values())
        most = max(highest, min(most, least + WIDEST * (highest - least)))
    return least, most + 0.02 * max(most - least, 1e-6)


def roc(scores: Mapping[str, tuple[Floats, Floats]]) -> Figure:
    """ROC curves of methods by their scores of normal and of anomalous images; the first is drawn boldly."""
    figure = Figure(figsize=(6.2, 5.7), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for index, (name, (normal, anomalous)) in enumerate(scores.items()):
        truth = np.repeat([0, 1], [len(normal), len(anomalous)])
        false, true, _ = roc_curve(truth, np.concatenate([normal, anomalous]))
        colour, style = STYLES[index % len(STYLES)]
        label = f"{name}: AUROC {auroc(normal, anomalous):.3f}"
        axes.plot(
            false, true, color=colour, linestyle=style, linewidth=1.6 if index else 3, label=label
        )
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="random scores: AUROC 0.5")
    axes.set_xlabel("false positive rate: share of normal images called anomalous")
    axes.set_ylabel("true positive rate: share of anomalous images found")
    axes.set_aspect("equal")
    axes.grid(color="0.9")
    axes.legend(loc="lower right", fontsize=9)
    return figure


def verdict(image: Pixels, drawn: Pixels, sentences: Sequence[str]) -> Figure:
    """A photograph, its overlay, and the verdict in words, side by side; the first sentence is the largest."""
    height, width = image.shape[:2]
    second, third = MARGIN + width + GAP, MARGIN + 2 * (width + GAP) + GAP
    canvas = _Canvas.of(height + 2 * MARGIN + LINE_HEIGHT, third + WORDS_WIDTH)
    for left, head, picture in ((MARGIN, "photograph", image), (second, "anomaly heatmap", drawn)):
        canvas.write(head, MARGIN // 2, left, fontsize=TITLE_SIZE)
        canvas.place(picture, MARGIN + LINE_HEIGHT, left)
    first, *others = sentences
    middle = MARGIN + LINE_HEIGHT + height // 2
    canvas.write(first, middle - 110, third, fontsize=22, weight="bold", color=VERMILLION)
    canvas.write("\n".join(others), middle - 60, third, fontsize=12, linespacing=1.8)
    return canvas.finish()
