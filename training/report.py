"""The report of a bundle: one self-contained HTML page, and its pictures as PNGs beside it."""

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from service.latents import NormalPrior, Prior
from service.manifest import Calibration
from training import calibration, evaluation, plots
from training.bundle import Published
from training.data import Given, Images, Outliers
from training.findings import Findings
from training.recipe import Recipe

PAGE = "index.html"
BASELINES = {"pca": "principal components", "nearest_neighbours": "5 nearest neighbours"}


class Picture(NamedTuple):
    name: str  # of the PNG
    title: str
    caption: str
    figure: Figure


def write(model: Published, findings: Findings, directory: Path) -> Path:
    """Draw all that there is to see of a bundle on its test images; gives the page."""
    return _write(model, _pictures(model, findings), directory)


def write_calibration(model: Published, normal: Images, directory: Path) -> Path:
    """Draw what a calibration on these images came to; gives the page."""
    calibrated = model.manifest.calibration
    assert calibrated is not None  # it has just been made
    shown = normal[: plots.COLUMNS]
    rows = {"calibration images": shown, "reconstructed": plots.reconstruct(model, shown)}
    scores = {"calibration images": np.array(calibrated.scores)}
    pictures = (
        Picture("reconstructions", "Reconstructions", "Of the first calibration images.", plots.rows(rows)),
        _scores(scores, calibrated),
    )
    return _write(model, pictures, directory)


def _write(model: Published, pictures: Iterable[Picture], directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    sections = []
    for picture in pictures:
        path = directory / f"{picture.name}.png"
        plots.save(picture.figure, path)
        inline = base64.b64encode(path.read_bytes()).decode("ascii")
        sections.append(
            f"<h2>{html.escape(picture.title)}</h2>\n<p>{html.escape(picture.caption)}</p>\n"
            f'<img alt="{html.escape(picture.title)}" src="data:image/png;base64,{inline}">'
        )
    page = directory / PAGE
    page.write_text(_page(model, "\n".join(sections)), encoding="utf-8")
    return page


def _pictures(model: Published, findings: Findings) -> Iterator[Picture]:
    recipe, given, pca = findings.recipe, findings.given, findings.principal_components
    test = given.dataset.test
    shown, latent_dim = test.images[: plots.COLUMNS], findings.latent_dim

    yield Picture(
        "losses", "Loss", "Of the last training batch and of the validation images.", plots.losses(model.history())
    )

    rows = {"originals": shown, "reconstructed": plots.reconstruct(model, shown)}
    if pca:
        rows[f"reconstructed by {latent_dim} principal components"] = _uint8(pca.reconstruct(shown))
    yield Picture("reconstructions", "Reconstructions", "Of the first test images.", plots.rows(rows))

    if sigma := recipe.corruption.sigma:
        noisy = evaluation.add_noise(shown, sigma)
        rows = {"noisy": noisy, "denoised": plots.reconstruct(model, noisy), "originals": shown}
        if pca:
            rows[f"denoised by {latent_dim} principal components"] = _uint8(pca.reconstruct(noisy))
        yield Picture("denoised", "Denoising", f"Gaussian noise of sigma {sigma}.", plots.rows(rows))

    scattered = test.images[: plots.SCATTERED]
    latents = model.graphs.chain_in_batches(["encoder"], ["latents"], images=scattered)["latents"]
    how = "as they are" if latent_dim <= 3 else "projected on their first two principal components"
    labels = None if test.labels is None else test.labels[: len(latents)]
    figure = plots.latent_scatter(latents, labels, given.dataset.classes)
    yield Picture("latents", "Latent space", f"Latents of {len(latents)} test images, {how}.", figure)
    if latent_dim == 2:
        caption = "Decoded at even quantiles of a normal fitted to each dimension."
        yield Picture("grid", "The plane of latents", caption, plots.latent_grid(model, latents))

    if "sample" in model.manifest.capabilities:
        yield Picture("samples", "Samples", "Drawn with one seed, not chosen.", _samples(model, given, recipe))
    yield Picture(
        "interpolations", "Interpolations", "Straight paths between latents.", plots.interpolations(model, test.images)
    )

    scores = {"test images": findings.scored.scores}
    if given.outliers and findings.outliers_scored:
        scores[f"{given.outliers.title} (not seen in training)"] = findings.outliers_scored.scores
    yield _scores(scores, findings.calibration)
    if recipe.anomaly and given.outliers:
        yield from _detection(model, findings, given.outliers)

    if classes := model.manifest.classes:
        figure = plots.confusion_matrix(findings.confusion, classes)
        yield Picture("confusion", "Confusion matrix", "Of the test images.", figure)


def _detection(model: Published, findings: Findings, outliers: Outliers) -> Iterator[Picture]:
    assert findings.outliers_scored is not None
    own = findings.scored.scores, findings.outliers_scored.scores
    beaten = " and ".join(findings.beaten_by())
    warning = f" Warning: {beaten} is better than this model." if beaten else ""
    curves = {model.manifest.name: own} | {BASELINES[name]: scores for name, scores in findings.baselines.items()}
    caption = "Strange images found at each rate of false alarms, by this model and by simple methods." + warning
    yield Picture("roc", "ROC", caption, plots.roc(curves))

    test, kinds, labels = findings.given.dataset.test.images, outliers.kinds, outliers.images.labels
    if labels is None or not kinds:
        kinds, labels = (outliers.title,), np.zeros(len(outliers.images), dtype=np.int64)
    share = max(1, (plots.COLUMNS - 2) // len(kinds))
    chosen = np.concatenate([np.flatnonzero(labels == label)[:share] for label in range(len(kinds))])
    images = np.concatenate([test[:2], outliers.images.images[chosen]])
    masks: list[Images | None] | None = None
    if outliers.masks is not None and outliers.masked is not None:
        drawn = (outliers.masks * 255).astype(np.uint8)
        masks = [np.zeros_like(drawn[0])] * 2 + [drawn[each] if outliers.masked[each] else None for each in chosen]
    titles = ["normal"] * len(test[:2]) + [kinds[labels[index]] for index in chosen]
    caption = "Two normal images and the first of each strange kind; the colours mean the same in all."
    yield Picture("heatmaps", "Heatmaps", caption, plots.defects(model, images, titles, masks))


def _scores(scores: Mapping[str, npt.NDArray[np.floating]], calibrated: Calibration) -> Picture:
    histogram = plots.error_histogram(scores, calibrated, evaluation.RATES)
    return Picture("scores", "Anomaly scores", f"The {calibrated.method}, and the thresholds at two rates.", histogram)


def _samples(model: Published, given: Given, recipe: Recipe) -> Figure:
    """From the prior, and from what it may be held against: beside N(0, I) a mixture, beside a mixture one Gaussian."""
    latents = calibration.mixture_latents(model.graphs, given.parts.training.images)
    priors: dict[str, Prior]
    if isinstance(model.prior, NormalPrior):
        priors = {"from the prior, N(0, I)": model.prior}
        if count := recipe.mixture_components:
            priors["from a mixture of Gaussians"] = calibration.fit_mixture(latents, count, recipe.seed)
    else:
        priors = {
            "from one Gaussian": calibration.fit_mixture(latents, 1, recipe.seed),
            "from the mixture, which is the prior": model.prior,
        }
    drawn = {
        name: plots.decode(model, prior.draw(plots.COLUMNS, plots.SAMPLE_SEED, temperature=1.0))
        for name, prior in priors.items()
    }
    return plots.rows(drawn)


def _uint8(intensities: npt.NDArray[np.float32]) -> Images:
    return np.rint(np.clip(intensities, 0, 1) * 255).astype(np.uint8)


def _page(model: Published, sections: str) -> str:
    manifest = model.manifest
    figures = "\n".join(f"<tr><td>{name}</td><td>{value:.6g}</td></tr>" for name, value in manifest.metrics.items())
    title = html.escape(f"{manifest.name}, version {manifest.version}")
    recipe = html.escape(json.dumps(manifest.provenance.recipe, indent=1))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }}
td {{ padding: 0 1.5rem 0 0; font-variant-numeric: tabular-nums; }}
</style>
<h1>{title}</h1>
<p>{html.escape(manifest.description)}.<br>
{html.escape(manifest.architecture)}; {manifest.latent_dim} latent dimensions.</p>
<h2>Test figures, through the exported graphs</h2>
<table>
{figures}
</table>
{sections}
<h2>Recipe</h2>
<pre>{recipe}</pre>
</html>
"""
