"""The report of a bundle: one self-contained HTML page, and its pictures as PNGs beside it."""

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
from training.evaluation.page import Picture, metrics, write_page
from training.export import prior
from training.export.published import Published


def write(model: Published, results: AutoencoderResults, directory: Path) -> Path:
    """Draw all that there is to see of a bundle on its test images; gives the page."""
    return write_page(model, chain([metrics(model)], _pictures(model, results)), directory)


def write_calibration(model: Published, normal: Images, directory: Path) -> Path:
    """Draw what a calibration on these images came to; gives the page."""
    calibrated = model.manifest.calibration
    assert calibrated is not None  # it has just been made
    shown = normal[: plots.COLUMNS]
    rows = {"calibration images": shown, "reconstructed": plots.reconstruct(model, shown)}
    scores = {"calibration images": np.array(calibrated.scores)}
    pictures = (
        metrics(model),
        Picture(
            "reconstructions",
            "Reconstructions",
            "Of the first calibration images.",
            plots.rows(rows),
        ),
        _scores(scores, calibrated),
    )
    return write_page(model, pictures, directory)


def _pictures(model: Published, results: AutoencoderResults) -> Iterator[Picture]:
    dataset, pca = results.images.dataset, results.principal_components
    test = dataset.test
    shown, latent_dim = test.images[: plots.COLUMNS], results.latent_dim

    yield Picture(
        "losses",
        "Loss",
        "Of the last training batch and of the validation images.",
        plots.losses(model.history()),
    )

    rows = {"originals": shown, "reconstructed": plots.reconstruct(model, shown)}
    if pca:
        rows[f"reconstructed by {latent_dim} principal components"] = _uint8(pca.reconstruct(shown))
    yield Picture(
        "reconstructions", "Reconstructions", "Of the first test images.", plots.rows(rows)
    )

    if sigma := results.plan.noise:
        noisy = graph_metrics.add_noise(shown, sigma)
        rows = {"noisy": noisy, "denoised": plots.reconstruct(model, noisy), "originals": shown}
        if pca:
            rows[f"denoised by {latent_dim} principal components"] = _uint8(pca.reconstruct(noisy))
        yield Picture(
            "denoised", "Denoising", f"Gaussian noise of sigma {sigma}.", plots.rows(rows)
        )

    scattered = test.images[: plots.SCATTERED]
    latents = model.graphs.chain_in_batches(["encoder"], ["latents"], images=scattered)["latents"]
    how = "as they are" if latent_dim <= 3 else "projected on their first two principal components"
    labels = None if test.labels is None else test.labels[: len(latents)]
    figure = plots.latent_scatter(latents, labels, dataset.classes)
    yield Picture(
        "latents", "Latent space", f"Latents of {len(latents)} test images, {how}.", figure
    )
    if latent_dim == 2:
        caption = "Decoded at even quantiles of a normal fitted to each dimension."
        yield Picture("grid", "The plane of latents", caption, plots.latent_grid(model, latents))

    if "sample" in model.manifest.capabilities:
        yield Picture(
            "samples", "Samples", "Drawn with one seed, not chosen.", _samples(model, results)
        )
    yield Picture(
        "interpolations",
        "Interpolations",
        "Straight paths between latents.",
        plots.interpolations(model, test.images),
    )

    scores = {"test images": results.scored.scores}
    outliers = results.images.outliers
    if outliers and results.outliers_scored:
        scores[f"{outliers.title} (not in training)"] = results.outliers_scored.scores
    yield _scores(scores, results.calibration)

    if classes := model.manifest.classes:
        figure = plots.confusion_matrix(results.confusion, classes)
        yield Picture("confusion", "Confusion matrix", "Of the test images.", figure)


def _scores(scores: Mapping[str, npt.NDArray[np.floating]], calibrated: Calibration) -> Picture:
    histogram = plots.error_histogram(scores, calibrated, graph_metrics.RATES)
    return Picture(
        "scores",
        "Anomaly scores",
        f"The {calibrated.method}, and the thresholds at two rates.",
        histogram,
    )


def _samples(model: Published, results: AutoencoderResults) -> Figure:
    """From the prior, and from what it may be held against: beside N(0, I) a mixture, beside a mixture one Gaussian."""
    latents = prior.mixture_latents(model.graphs, results.images.splits.training.images)
    priors: dict[str, Prior]
    if isinstance(model.prior, NormalPrior):
        priors = {"from the prior, N(0, I)": model.prior}
        if count := results.plan.mixture_components:
            priors["from a mixture of Gaussians"] = prior.fit_mixture(
                latents, count, results.plan.seed
            )
    else:
        priors = {
            "from one Gaussian": prior.fit_mixture(latents, 1, results.plan.seed),
            "from the mixture, which is the prior": model.prior,
        }
    drawn = {
        name: plots.decode(model, prior.draw(plots.COLUMNS, plots.SAMPLE_SEED, temperature=1.0))
        for name, prior in priors.items()
    }
    return plots.rows(drawn)


def _uint8(intensities: npt.NDArray[np.float32]) -> Images:
    return np.rint(np.clip(intensities, 0, 1) * 255).astype(np.uint8)
