"""Pictures of the outputs of an autoencoder: reconstructions, latents, losses and scores."""

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import norm
from sklearn.decomposition import PCA

from bundle.conformal import ConformalScores
from bundle.heatmap import compute_brightness
from bundle.latents import interpolate
from bundle.manifest import Calibration
from bundle.tensors import Floats, Images, Labels
from training.export.graph_runner import RECONSTRUCTION_GRAPHS
from training.export.published import PublishedBundle

COLUMNS = 16
DPI = 100
MIN_WHITE_LEVEL = 244  # of 255; a colour with higher channels becomes white, as the page
SAMPLE_SEED = 7
COLOUR_WEIGHT_POWER = 0.45  # of the pixels of a colour: its weight in a palette
# Colours and scale, from the best picture to the smallest file.
PALETTE_STEPS = (
    (256, 1),
    (160, 1),
    (112, 1),
    (80, 1),
    (80, 0.85),
    (80, 0.7),
    (48, 0.6),
    (32, 0.45),
)
MAX_SCATTER_POINTS = 3000  # more hide each other
SCATTER_STYLE: dict[str, Any] = {"s": 4, "alpha": 0.7}


def save(figure: Figure, path: Path, max_bytes: int | None = None) -> None:
    """Write a PNG with a palette, to keep bundles small.

    Above `max_bytes`, colours are reduced, and then pixels.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", pil_kwargs={"compress_level": 0})
    picture = Image.open(drawn).convert("RGB")
    for colours, scale in PALETTE_STEPS:
        size = round(picture.width * scale), round(picture.height * scale)
        reduced = picture.resize(size, Image.Resampling.LANCZOS) if scale < 1 else picture
        palette = _build_palette(reduced, colours)
        reduced.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
        if max_bytes is None or path.stat().st_size <= max_bytes:
            return


def _build_palette(picture: Image.Image, colours: int) -> Image.Image:
    """Build a palette for a picture; rare colours, as of lines, weigh more than their pixels."""
    levels = np.asarray(picture).reshape(-1, 3).astype(np.int64) >> 2  # 64 levels a channel
    counts = np.bincount(levels @ [64 * 64, 64, 1], minlength=64**3)
    used = np.flatnonzero(counts)
    weighed = np.repeat(used, np.ceil(counts[used] ** COLOUR_WEIGHT_POWER).astype(int))
    channels = np.stack([weighed >> 12, weighed >> 6 & 63, weighed & 63], axis=-1)
    sample = Image.fromarray((channels * 255 // 63).astype(np.uint8)[None])
    palette = sample.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=1)
    entries = np.array(palette.getpalette()).reshape(-1, 3)
    entries[(entries >= MIN_WHITE_LEVEL).all(axis=1)] = 255
    palette.putpalette(entries.ravel().tolist())
    return palette


def reconstruct(model: PublishedBundle, images: Images) -> Images:
    """Reconstruct images uint8 (n, height, width, channels)."""
    outputs = model.graphs.chain(RECONSTRUCTION_GRAPHS, images=images)
    return outputs["reconstructions"].astype(np.uint8)


def decode(model: PublishedBundle, latents: Floats) -> Images:
    """Decode latents (n, latent_dim) to uint8 images."""
    outputs = model.graphs.chain(["decoder"], latents=latents.astype(np.float32))
    return outputs["reconstructions"].astype(np.uint8)


def compute_heatmaps(model: PublishedBundle, images: Images) -> Images:
    """Compute heatmaps uint8 (n, height, width, 1) of images."""
    calibration = model.require_calibration()
    outputs = model.graphs.chain_in_batches(model.graphs.scoring, ["error_maps"], images=images)
    maps = outputs["error_maps"].astype(np.float32)
    return np.stack([compute_brightness(error_map, calibration.error_map) for error_map in maps])[
        ..., None
    ]


def draw_rows(images: Mapping[str, Images], hot: Collection[str] = ()) -> Figure:
    """Draw rows of images, each under its title; rows with titles in `hot` are heatmaps."""
    figure = Figure(figsize=(10, 0.83 * len(images)), dpi=DPI, layout="constrained")
    for axes, (title, row) in zip(
        np.ravel(figure.subplots(len(images), 1)), images.items(), strict=True
    ):
        _show(axes, _join_images(row), "inferno" if title in hot else "gray")
        axes.set_title(title, loc="left", fontsize=9, pad=2)
    return figure


def draw_grid(images: Images, columns: int) -> Figure:
    """Draw images row by row, `columns` in each."""
    picture = np.concatenate(
        [_join_images(images[start : start + columns]) for start in range(0, len(images), columns)]
    )
    figure = Figure(
        figsize=(8, 8 * picture.shape[0] / picture.shape[1]), dpi=DPI, layout="constrained"
    )
    _show(figure.subplots(), picture)
    return figure


def draw_losses(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the loss of each stage by epoch, of the last training batch and of validation images."""
    stages = list(dict.fromkeys(row["stage"] for row in history))
    figure = Figure(figsize=(max(5, 3.2 * len(stages)), 3.2), dpi=DPI, layout="constrained")
    for axes, stage in zip(np.ravel(figure.subplots(1, len(stages))), stages, strict=True):
        of_stage = [row for row in history if row["stage"] == stage]
        epochs = [row["epoch"] for row in of_stage]
        for name, label in (("loss", "training"), ("validation_loss", "validation")):
            axes.plot(
                epochs,
                [row[name] for row in of_stage],
                label=label,
                marker="." if len(epochs) < 3 else None,
            )
        if all(row[name] > 0 for row in of_stage for name in ("loss", "validation_loss")):
            axes.set_yscale("log")
        axes.set(title=stage, xlabel="epoch")
        axes.legend()
    return figure


def draw_latent_scatter(latents: Floats, labels: Labels | None, classes: Sequence[str]) -> Figure:
    """Draw latents (n, latent_dim), coloured by class.

    More than three dimensions are projected on two principal components.
    """
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    projected = latents.shape[1] > 3
    points = PCA(2).fit_transform(latents) if projected else latents
    axes: Any = figure.add_subplot(projection="3d" if points.shape[1] == 3 else None)
    if points.shape[1] == 3:
        axes.set_box_aspect(None, zoom=0.85)  # or the third label lies under the legend
        axes.tick_params(labelsize=7, pad=0)  # or the numbers lie under the labels
    columns = points.T if points.shape[1] > 1 else np.stack([points[:, 0], np.zeros(len(points))])
    if labels is None:
        axes.scatter(*columns, **SCATTER_STYLE)
    else:
        _scatter_classes(axes, columns, labels, classes)
        legend_columns = -(-len(classes) // 25)
        figure.legend(markerscale=3, fontsize=8, loc="outside right upper", ncols=legend_columns)
    name = "principal component" if projected else "latent dimension"
    for set_label, ordinal, _ in zip(
        ("xlabel", "ylabel", "zlabel"), ("first", "second", "third"), points.T, strict=False
    ):
        axes.set(**{set_label: f"{ordinal} {name}"})
    return figure


def _scatter_classes(axes: Any, columns: Floats, labels: Labels, classes: Sequence[str]) -> None:
    colours = colormaps["tab10" if len(classes) <= 10 else "turbo"]
    for label, name in enumerate(classes):
        colour = colours(label / max(1, len(classes) - 1))
        axes.scatter(*columns[:, labels == label], label=name, color=colour, **SCATTER_STYLE)


def draw_latent_grid(model: PublishedBundle, latents: Floats, steps: int = 18) -> Figure:
    """Draw images decoded from a plane of latents, at even quantiles of a fitted normal."""
    quantiles = norm.ppf(np.linspace(0.03, 0.97, steps))
    x, y = (latents[:, axis].mean() + latents[:, axis].std() * quantiles for axis in (0, 1))
    points = np.array([[a, b] for b in y[::-1] for a in x])
    return draw_grid(decode(model, points), steps)


def draw_interpolations(model: PublishedBundle, images: Images, pairs: int = 4) -> Figure:
    """Draw images decoded from paths between the latents of successive images."""
    pairs = min(pairs, len(images) // 2)
    latents = model.graphs.chain(["encoder"], images=images[: 2 * pairs])["latents"]
    paths = [
        interpolate(latents[2 * pair], latents[2 * pair + 1], COLUMNS, "linear")
        for pair in range(pairs)
    ]
    return draw_grid(np.concatenate([decode(model, path) for path in paths]), COLUMNS)


def draw_error_histogram(
    scores: Mapping[str, Floats], calibration: Calibration, rates: Sequence[float]
) -> Figure:
    """Draw histograms of anomaly scores, with calibrated thresholds at false positive rates."""
    figure = Figure(figsize=(7, 3.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate([*scores.values()])
    low, high = float(everything.min()), float(everything.max())
    logarithmic = low >= 0  # errors spread over decades, standard deviations do not
    bins = np.geomspace(max(low, 1e-9), high, 80) if logarithmic else np.linspace(low, high, 80)
    for name, values in scores.items():
        shown = np.maximum(values, 1e-9) if logarithmic else values
        axes.hist(shown, bins.tolist(), alpha=0.7, density=True, label=name)
    conformal = ConformalScores(calibration)
    for rate, style in zip(rates, ("--", ":"), strict=False):
        threshold = conformal.threshold(rate)
        if threshold is not None:
            axes.axvline(threshold, color="black", linestyle=style, label=f"threshold at {rate}")
    scale = "log" if logarithmic else "linear"
    axes.set(xscale=scale, yscale="log", xlabel="anomaly score", ylabel="density")
    figure.legend(fontsize=8, loc="outside upper center", ncols=4)
    return figure


def draw_confusion_matrix(matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw counts of images by true class (row) and predicted class; colours show errors alone."""
    size = max(5.4, 0.42 * len(classes))
    figure = Figure(figsize=(size + 0.6, size), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    errors = matrix - np.diag(np.diag(matrix))
    axes.imshow(errors, cmap="Oranges")
    for (row, column), count in np.ndenumerate(matrix):
        axes.text(column, row, str(count) if count else "", ha="center", va="center", fontsize=7)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(ticks, classes, fontsize=8)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def _show(axes: Any, picture: Images, colour_map: str = "gray") -> None:
    colours = {"cmap": colour_map, "vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
    axes.imshow(picture, interpolation="nearest", **colours)
    axes.set_axis_off()


def _join_images(images: Images) -> Images:
    """Join images side by side, as grey (h, w) or RGB (h, w, 3)."""
    strip = np.concatenate(list(np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))), axis=1)
    return strip[..., 0] if strip.shape[2] == 1 else strip
