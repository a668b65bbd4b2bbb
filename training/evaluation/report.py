"""The report of an autoencoder: one self-contained HTML page, and its pictures as PNGs."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bundle.latents import NormalPrior, Prior
from bundle.manifest import Calibration
from bundle.tensors import Images
from training.evaluation import graph_metrics, plots
from training.evaluation.autoencoder_results import AutoencoderResults
from training.evaluation.page import Picture, list_metrics, write_page
from training.export import prior
from training.export.published import PublishedBundle


def write(model: PublishedBundle, results: AutoencoderResults, directory: Path) -> Path:
    """Draw the report of a bundle on its test images; returns the path of the page."""
    return write_page(
        model, chain([list_metrics(model)], _draw_pictures(model, results)), directory
    )


def write_calibration(model: PublishedBundle, normal: Images, directory: Path) -> Path:
    """Draw the report of a calibration on these images; returns the path of the page."""
    calibrated = model.require_calibration()
    shown = normal[: plots.COLUMNS]
    rows = {"calibration images": shown, "reconstructed": plots.reconstruct(model, shown)}
    scores = {"calibration images": np.array(calibrated.scores)}
    pictures = (
        list_metrics(model),
        Picture(
            "reconstructions",
            "Reconstructions",
            "Of the first calibration images.",
            plots.draw_rows(rows),
        ),
        _draw_scores(scores, calibrated),
    )
    return write_page(model, pictures, directory)


def _draw_pictures(model: PublishedBundle, results: AutoencoderResults) -> Iterator[Picture]:
    yield Picture(
        "losses",
        "Loss",
        "Of the last training batch and of the validation images.",
        plots.draw_losses(model.history()),
    )

    yield from _draw_reconstructions(model, results)
    yield from _draw_latents(model, results)
    if "sample" in model.manifest.capabilities:
        yield Picture(
            "samples", "Samples", "Drawn with one seed, not chosen.", _draw_samples(model, results)
        )
    yield Picture(
        "interpolations",
        "Interpolations",
        "Straight paths between latents.",
        plots.draw_interpolations(model, results.images.dataset.test.images),
    )
    scores = {"test images": results.scored.scores}
    outliers = results.images.outliers
    if outliers and results.outliers_scored:
        scores[f"{outliers.title} (not in training)"] = results.outliers_scored.scores
    yield _draw_scores(scores, results.calibration)
    if classes := model.manifest.classes:
        figure = plots.draw_confusion_matrix(results.confusion, classes)
        yield Picture("confusion", "Confusion matrix", "Of the test images.", figure)


def _draw_reconstructions(model: PublishedBundle, results: AutoencoderResults) -> Iterator[Picture]:
    pca, latent_dim = results.principal_components, results.latent_dim
    shown = results.images.dataset.test.images[: plots.COLUMNS]
    rows = {"originals": shown, "reconstructed": plots.reconstruct(model, shown)}
    if pca:
        rows[f"reconstructed by {latent_dim} principal components"] = _to_uint8(
            pca.reconstruct(shown)
        )
    yield Picture(
        "reconstructions", "Reconstructions", "Of the first test images.", plots.draw_rows(rows)
    )

    if sigma := results.settings.noise:
        noisy = graph_metrics.add_noise(shown, sigma)
        rows = {"noisy": noisy, "denoised": plots.reconstruct(model, noisy), "originals": shown}
        if pca:
            rows[f"denoised by {latent_dim} principal components"] = _to_uint8(
                pca.reconstruct(noisy)
            )
        yield Picture(
            "denoised", "Denoising", f"Gaussian noise of sigma {sigma}.", plots.draw_rows(rows)
        )


def _draw_latents(model: PublishedBundle, results: AutoencoderResults) -> Iterator[Picture]:
    dataset, latent_dim = results.images.dataset, results.latent_dim
    scattered = dataset.test.images[: plots.MAX_SCATTER_POINTS]
    latents = model.graphs.chain_in_batches(["encoder"], ["latents"], images=scattered)["latents"]
    projection = "" if latent_dim <= 3 else ", projected on their first two principal components"
    labels = None if dataset.test.labels is None else dataset.test.labels[: len(latents)]
    figure = plots.draw_latent_scatter(latents, labels, dataset.classes)
    yield Picture(
        "latents", "Latent space", f"Latents of {len(latents)} test images{projection}.", figure
    )
    if latent_dim == 2:
        caption = "Decoded at even quantiles of a normal fitted to each dimension."
        yield Picture(
            "grid", "The plane of latents", caption, plots.draw_latent_grid(model, latents)
        )


def _draw_scores(
    scores: Mapping[str, npt.NDArray[np.floating]], calibrated: Calibration
) -> Picture:
    histogram = plots.draw_error_histogram(scores, calibrated, graph_metrics.REPORTED_RATES)
    return Picture(
        "scores",
        "Anomaly scores",
        f"The {calibrated.method}, and the thresholds at two false positive rates.",
        histogram,
    )


def _draw_samples(model: PublishedBundle, results: AutoencoderResults) -> Figure:
    """Draw samples of the prior, and of another prior to compare: a mixture, or one Gaussian."""
    latents = prior.encode_for_mixture(model.graphs, results.images.splits.training.images)
    priors: dict[str, Prior]
    if isinstance(model.prior, NormalPrior):
        priors = {"from the prior, N(0, I)": model.prior}
        if count := results.settings.mixture_components:
            priors["from a mixture of Gaussians"] = prior.fit_mixture(
                latents, count, results.settings.seed
            )
    else:
        priors = {
            "from one Gaussian": prior.fit_mixture(latents, 1, results.settings.seed),
            "from the mixture, which is the prior": model.prior,
        }
    drawn = {
        name: plots.decode(model, prior.draw(plots.COLUMNS, plots.SAMPLE_SEED, temperature=1.0))
        for name, prior in priors.items()
    }
    return plots.draw_rows(drawn)


def _to_uint8(intensities: npt.NDArray[np.float32]) -> Images:
    return np.rint(np.clip(intensities, 0, 1) * 255).astype(np.uint8)
