"""Pictures of a detector: overlays, grids, histograms of scores, and ROC curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy import ndimage
from sklearn.metrics import roc_curve

from bundle import heatmap, imaging
from bundle.heatmap import compute_brightness, find_regions
from bundle.manifest import Calibration, InputSpec
from bundle.tensors import Floats, Pixels
from training.evaluation.plots import DPI
from training.metrics.detection import auroc

Mask = npt.NDArray[np.bool_]

BOX_PIXELS = (320, 300)  # height and width that a shown image fits into
COLUMNS = 3
VERDICT_WIDTH = 340  # pixels
MIN_COLUMN_PIXELS = 220  # titles need this width
MARGIN, GAP, LINE_HEIGHT = 16, 12, 22  # pixels
TITLE_SIZE, TEXT_SIZE = 11, 10  # points

# Okabe and Ito 2008, "Color Universal Design": distinct to colour-blind people.
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
EDGE_GREY = 192  # of the line around an image, which may be white
BINS = 60
MAX_WIDTH_RATIO = 8  # of the whole axis to its part up to the highest threshold
TAIL_QUANTILE = 0.98  # of scores; the last bar holds all higher scores


class PictureRow(NamedTuple):
    """Pictures side by side, under a title of a few lines."""

    title: str
    pictures: Sequence[Pixels]


def fit_into_box(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a shown image: reduced, or enlarged by a whole number."""
    scale = min(BOX_PIXELS[0] / size[0], BOX_PIXELS[1] / size[1])
    scale = float(int(scale)) if scale >= 1 else scale
    return round(size[0] * scale), round(size[1] * scale)


def enlarge(image: Pixels, size: tuple[int, int], spec: InputSpec) -> Pixels:
    """Resize an image (height, width, channels): pixels repeat at a multiple, else it is smooth."""
    down, across = (new // old for new, old in zip(size, image.shape, strict=False))
    if (image.shape[0] * down, image.shape[1] * across) == size:
        return image.repeat(down, axis=0).repeat(across, axis=1)
    return imaging.resize(image, size, spec)


def to_rgb(image: Pixels) -> Pixels:
    """Convert an image (height, width, 1 or 3) to three channels."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def draw_overlay(
    image: Pixels, error_map: Floats, calibration: Calibration, spec: InputSpec
) -> Pixels:
    """Draw heatmap and regions over an image (height, width, channels), as the service does."""
    scale, size = calibration.error_map, image.shape[:2]
    boxes = [region.scale(error_map.shape, size) for region in find_regions(error_map, scale)]
    return heatmap.draw(
        image, imaging.resize(compute_brightness(error_map, scale), size, spec), boxes
    )


def draw_outline(image: Pixels, mask: Mask) -> Pixels:
    """Draw a blue line around a mask (height, width) on an image (height, width, channels)."""
    drawn = to_rgb(image).copy()
    inner = ndimage.binary_dilation(mask, iterations=3)
    drawn[ndimage.binary_dilation(inner) & ~mask] = 0
    drawn[inner & ~mask] = MASK_COLOUR
    return drawn


def draw_frame(image: Pixels, mask: Mask) -> Pixels:
    """Draw a blue frame around a mask on an image (height, width, channels)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return to_rgb(image)
    distance = 6  # pixels, so that the frame does not hide a faint anomaly
    framed = np.zeros_like(mask)
    framed[
        max(0, rows[0] - distance) : rows[-1] + distance,
        max(0, columns[0] - distance) : columns[-1] + distance,
    ] = 1
    return draw_outline(image, framed)


@dataclass(frozen=True)
class _Canvas:
    """A white picture for images, placed pixel by pixel, and texts."""

    pixels: Pixels
    figure: Figure

    @classmethod
    def of(cls, height: int, width: int) -> "_Canvas":
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        return cls(np.full((height, width, 3), 255, np.uint8), figure)

    def place(self, image: Pixels, top: int, left: int) -> None:
        bottom, right = top + image.shape[0], left + image.shape[1]
        self.pixels[top - 1 : bottom + 1, left - 1 : right + 1] = EDGE_GREY
        self.pixels[top:bottom, left:right] = to_rgb(image)

    def write(self, text: str, top: int, left: int, **style: Any) -> None:
        height, width = self.pixels.shape[:2]
        options: dict[str, Any] = {"fontsize": TEXT_SIZE, "va": "top", "linespacing": 1.3}
        self.figure.text(left / width, 1 - top / height, text, **(options | style))

    def finish(self) -> Figure:
        self.figure.figimage(self.pixels, origin="upper")
        return self.figure


def draw_overlay_table(heads: Sequence[str], rows: Sequence[PictureRow]) -> Figure:
    """Draw rows of pictures under column heads, with the colour bar of heatmaps below."""
    column = max(MIN_COLUMN_PIXELS, *(picture.shape[1] for row in rows for picture in row.pictures))
    heights = [max(picture.shape[0] for picture in row.pictures) for row in rows]
    width = 2 * MARGIN + len(heads) * (column + GAP) - GAP
    head = MARGIN + LINE_HEIGHT
    canvas = _Canvas.of(
        head + sum(heights) + len(rows) * (LINE_HEIGHT + GAP) + _BAR_HEIGHT_PIXELS, width
    )
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


_BAR_PIXELS, _BAR_HEIGHT_PIXELS = 20, 2 * LINE_HEIGHT + 40  # of the colours; with the texts
_BAR_COLOURS = 16


def _draw_bar(canvas: _Canvas, top: int) -> None:
    """Draw the colours of a heatmap over middle grey, as over a photograph."""
    width = canvas.pixels.shape[1] - 2 * MARGIN
    # Steps are drawn, because a palette of few colours would make some anyway.
    steps = np.arange(width) * _BAR_COLOURS // width
    levels = np.broadcast_to(
        (steps * 255 // (_BAR_COLOURS - 1)).astype(np.uint8), (_BAR_PIXELS, width)
    )
    ground = np.full((_BAR_PIXELS, width, 1), 128, np.uint8)
    middle, below = width // 2, top + _BAR_PIXELS + 14
    canvas.place(heatmap.draw(ground, levels, ()), top + 4, MARGIN)
    canvas.place(np.zeros((_BAR_PIXELS + 6, 2, 3), np.uint8), top + 4, MARGIN + middle)
    canvas.write("usual in normal images", below, MARGIN)
    canvas.write("boxed from here on", below, MARGIN + middle, ha="center")
    canvas.write("rare in normal images", below, MARGIN + width, ha="right")


def draw_grid(cells: Sequence[PictureRow]) -> Figure:
    """Draw cells of one picture, each under a title of two lines, `COLUMNS` in a row."""
    column = max(MIN_COLUMN_PIXELS, *(cell.pictures[0].shape[1] for cell in cells))
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
    """Scores of one histogram, with its title and colour."""

    title: str
    scores: Floats
    colour: str


def draw_histograms(groups: Sequence[Group], thresholds: Mapping[float, float]) -> Figure:
    """Draw a histogram of each group, on one axis, with thresholds by false positive rate."""
    figure = Figure(figsize=(9, 1.35 * len(groups) + 1.1), dpi=DPI, layout="constrained")
    panels = np.ravel(figure.subplots(len(groups), 1, sharex=True))
    low, high = _find_limits(groups, thresholds)
    for axes, group in zip(panels, groups, strict=True):
        _draw_histogram(axes, group, low, high)
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


def _draw_histogram(axes: Any, group: Group, low: float, high: float) -> None:
    bins = np.linspace(low, high, BINS).tolist()
    axes.hist(np.clip(group.scores, low, high), bins, color=group.colour)
    axes.set_title(f"{group.title}: {len(group.scores):,}", loc="left", fontsize=TEXT_SIZE)
    axes.set_ylabel("images", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)


def _find_limits(groups: Sequence[Group], thresholds: Mapping[float, float]) -> tuple[float, float]:
    """Limits of the axis: the lowest score, and a high quantile that keeps thresholds apart."""
    low = min(float(group.scores.min()) for group in groups)
    high = max(float(np.quantile(group.scores, TAIL_QUANTILE)) for group in groups)
    if thresholds:
        highest = max(thresholds.values())
        high = max(highest, min(high, low + MAX_WIDTH_RATIO * (highest - low)))
    return low, high + 0.02 * max(high - low, 1e-6)


def draw_roc(scores: Mapping[str, tuple[Floats, Floats]]) -> Figure:
    """Draw ROC curves by scores of normal and of anomalous images; the first curve is bold."""
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


def draw_verdict(image: Pixels, drawn: Pixels, sentences: Sequence[str]) -> Figure:
    """Draw a photograph, its overlay, and sentences side by side; the first sentence is large."""
    height, width = image.shape[:2]
    second, third = MARGIN + width + GAP, MARGIN + 2 * (width + GAP) + GAP
    canvas = _Canvas.of(height + 2 * MARGIN + LINE_HEIGHT, third + VERDICT_WIDTH)
    for left, head, picture in ((MARGIN, "photograph", image), (second, "anomaly heatmap", drawn)):
        canvas.write(head, MARGIN // 2, left, fontsize=TITLE_SIZE)
        canvas.place(picture, MARGIN + LINE_HEIGHT, left)
    first, *others = sentences
    middle = MARGIN + LINE_HEIGHT + height // 2
    canvas.write(first, middle - 110, third, fontsize=22, weight="bold", color=VERMILLION)
    canvas.write("\n".join(others), middle - 60, third, fontsize=12, linespacing=1.8)
    return canvas.finish()
