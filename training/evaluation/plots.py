"""What a model makes of images and latents, and pictures of it."""

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
from bundle.heatmap import heat
from bundle.latents import interpolate
from bundle.manifest import Calibration
from bundle.tensors import Images, Labels
from training.export.graph_runner import RECONSTRUCT
from training.export.published import Published

Floats = npt.NDArray[np.floating[Any]]
COLUMNS = 16
DPI = 100
NEARLY_WHITE = 244  # of 255, in each channel of a colour that is taken for the page's
SAMPLE_SEED = 7
RARE = 0.45  # power of a colour's number of pixels: its weight in a palette
SAVED = (
    (256, 1.0),
    (160, 1.0),
    (112, 1.0),
    (80, 1.0),
    (80, 0.85),
    (80, 0.7),
    (48, 0.6),
    (32, 0.45),
)  # colours, scales
SCATTERED = 3000  # points of a scatter plot; more hide each other


def save(figure: Figure, path: Path, most_bytes: int | None = None) -> None:
    """Write a PNG with a palette, because bundles carry it.

    If it has more than `most_bytes`, fewer colours are kept, and then fewer pixels.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", pil_kwargs={"compress_level": 0})
    picture = Image.open(drawn).convert("RGB")
    for colours, scale in SAVED:
        size = round(picture.width * scale), round(picture.height * scale)
        reduced = picture.resize(size, Image.Resampling.LANCZOS) if scale < 1 else picture
        palette = _palette(reduced, colours)
        reduced.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
        if most_bytes is None or path.stat().st_size <= most_bytes:
            return


def _palette(picture: Image.Image, colours: int) -> Image.Image:
    """An image whose palette suits a picture: rare colours, as of lines, weigh more than their pixels."""
    levels = np.asarray(picture).reshape(-1, 3).astype(np.int64) >> 2  # 64 levels a channel
    counts = np.bincount(levels @ [64 * 64, 64, 1], minlength=64**3)
    found = np.flatnonzero(counts)
    weighed = np.repeat(found, np.ceil(counts[found] ** RARE).astype(int))
    channels = np.stack([weighed >> 12, weighed >> 6 & 63, weighed & 63], axis=-1)
    sample = Image.fromarray((channels * 255 // 63).astype(np.uint8)[None])
    palette = sample.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=1)
    entries = np.array(palette.getpalette()).reshape(-1, 3)
    entries[(entries >= NEARLY_WHITE).all(axis=1)] = 255
    palette.putpalette(entries.ravel().tolist())
    return palette


def reconstruct(model: Published, images: Images) -> Images:
    return model.graphs.chain(RECONSTRUCT, images=images)["reconstructions"].astype(np.uint8)


def decode(model: Published, latents: Floats) -> Images:
    return model.graphs.chain(["decoder"], latents=latents.astype(np.float32))[
        "reconstructions"
    ].astype(np.uint8)


def heatmaps(model: Published, images: Images) -> Images:
    calibration = model.manifest.calibration
    assert calibration is not None  # every autoencoder is calibrated
    maps = model.graphs.chain_in_batches(model.graphs.scoring, ["error_maps"], images=images)[
        "error_maps"
    ].astype(np.float32)
    return np.stack([heat(error_map, calibration.error_map) for error_map in maps])[..., None]


def rows(images: Mapping[str, Images], hot: Collection[str] = ()) -> Figure:
    """Rows of images, each with its title; those whose titles are `hot` are heatmaps."""
    figure = Figure(figsize=(10, 0.83 * len(images)), dpi=DPI, layout="constrained")
    for axes, (title, row) in zip(
        np.ravel(figure.subplots(len(images), 1)), images.items(), strict=True
    ):
        _show(axes, _strip(row), "inferno" if title in hot else "gray")
        axes.set_title(title, loc="left", fontsize=9, pad=2)
    return figure


def grid(images: Images, columns: int) -> Figure:
    """Images row by row, `columns` in each."""
    picture = np.concatenate(
        [_strip(images[start : start + columns]) for start in range(0, len(images), columns)]
    )
    figure = Figure(
        figsize=(8, 8 * picture.shape[0] / picture.shape[1]), dpi=DPI, layout="constrained"
    )
    _show(figure.subplots(), picture)
    return figure


def losses(history: Sequence[Mapping[str, Any]]) -> Figure:
    """The loss of each stage over its epochs, of the last training batch and of the validation images."""
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


def latent_scatter(latents: Floats, labels: Labels | None, classes: Sequence[str]) -> Figure:
    """Latents (n, latent_dim) coloured by class; of more than three dimensions their two principal components."""
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    projected = latents.shape[1] > 3
    points = PCA(2).fit_transform(latents) if projected else latents
    axes: Any = figure.add_subplot(projection="3d" if points.shape[1] == 3 else None)
    if points.shape[1] == 3:
        axes.set_box_aspect(None, zoom=0.85)  # or the third label lies under the legend
        axes.tick_params(labelsize=7, pad=0)  # or the numbers lie under the labels
    columns = points.T if points.shape[1] > 1 else np.stack([points[:, 0], np.zeros(len(points))])
    style: dict[str, Any] = {"s": 4, "alpha": 0.7}
    colours = colormaps["tab10" if len(classes) <= 10 else "turbo"]
    if labels is None:
        axes.scatter(*columns, **style)
    for label, name in enumerate(classes if labels is not None else ()):
        chosen = labels == label
        axes.scatter(
            *columns[:, chosen],
            label=name,
            color=colours(label / max(1, len(classes) - 1)),
            **style,
        )
    if labels is not None:
        columns_of_names = -(-len(classes) // 25)
        figure.legend(markerscale=3, fontsize=8, loc="outside right upper", ncols=columns_of_names)
    name = "principal component" if projected else "latent dimension"
    for set_label, ordinal, _ in zip(
        ("xlabel", "ylabel", "zlabel"), ("first", "second", "third"), points.T, strict=False
    ):
        axes.set(**{set_label: f"{ordinal} {name}"})
    return figure


def latent_grid(model: Published, latents: Floats, steps: int = 18) -> Figure:
    """What a two-dimensional latent space decodes to, at evenly spaced quantiles of a normal fitted to `latents`."""
    quantiles = norm.ppf(np.linspace(0.03, 0.97, steps))
    x, y = (latents[:, axis].mean() + latents[:, axis].std() * quantiles for axis in (0, 1))
    points = np.array([[a, b] for b in y[::-1] for a in x])
    return grid(decode(model, points), steps)


def interpolations(model: Published, images: Images, pairs: int = 4) -> Figure:
    """Paths between the latents of successive images."""
    pairs = min(pairs, len(images) // 2)
    latents = model.graphs.chain(["encoder"], images=images[: 2 * pairs])["latents"]
    paths = [
        interpolate(latents[2 * pair], latents[2 * pair + 1], COLUMNS, "linear")
        for pair in range(pairs)
    ]
    return grid(np.concatenate([decode(model, path) for path in paths]), COLUMNS)


def error_histogram(
    scores: Mapping[str, Floats], calibration: Calibration, rates: Sequence[float]
) -> Figure:
    """Anomaly scores of several sets of images, and the calibrated thresholds at some false positive rates."""
    figure = Figure(figsize=(7, 3.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    every = np.concatenate([*scores.values()])
    logarithmic = bool(every.min() >= 0)  # errors spread over decades, standard deviations do not
    drawn = {name: np.maximum(of, 1e-9) if logarithmic else of for name, of in scores.items()}
    spaced = np.geomspace if logarithmic else np.linspace
    lowest = max(float(every.min()), 1e-9) if logarithmic else float(every.min())
    bins = spaced(lowest, float(every.max()), 80).tolist()
    for name, of in drawn.items():
        axes.hist(of, bins, alpha=0.7, density=True, label=name)
    conformal = ConformalScores(calibration)
    for rate, style in zip(rates, ("--", ":"), strict=False):
        threshold = conformal.threshold(rate)
        if threshold is not None:
            axes.axvline(threshold, color="black", linestyle=style, label=f"threshold at {rate}")
    scale = "log" if logarithmic else "linear"
    axes.set(xscale=scale, yscale="log", xlabel="anomaly score", ylabel="density")
    figure.legend(fontsize=8, loc="outside upper center", ncols=4)
    return figure


def confusion_matrix(matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Images of each class (row) that were given each class (column); the colour shows the errors alone."""
    size = max(5.4, 0.42 * len(classes))
    figure = Figure(figsize=(size + 0.6, size), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    errors = matrix - np.diag(np.diag(matrix))
    axes.imshow(errors, cmap="Oranges")
    for (row, column), count in np.ndenumerate(matrix):
        axes.text(column, row, str(count) if count else "", ha="center", va="center", fontsize=7)
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(places, classes, fontsize=8)
    axes.set(xlabel="answer", ylabel="truth")
    return figure


def _show(axes: Any, picture: Images, colour_map: str = "gray") -> None:
    colours = {"cmap": colour_map, "vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
    axes.imshow(picture, interpolation="nearest", **colours)
    axes.set_axis_off()


def _strip(images: Images) -> Images:
    """Images side by side: grey (h, w) or RGB (h, w, 3)."""
    strip = np.concatenate(list(np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))), axis=1)
    return strip[..., 0] if strip.shape[2] == 1 else strip
