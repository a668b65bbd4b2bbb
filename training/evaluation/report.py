"""The report of a bundle: one self-contained HTML page, and its pictures as PNGs beside it."""

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bundle.latents import NormalPrior, Prior
from bundle.manifest import Calibration, ModelManifest
from training.data.dataset import Given, Images
from training.evaluation import graph_metrics, plots
from training.evaluation.test_results import Findings
from training.export import calibration
from training.pipeline.publish import Published
from training.recipe import Recipe

PAGE = "index.html"


class Picture(NamedTuple):
    name: str  # of the PNG
    title: str
    caption: str
    figure: Figure
    most_bytes: int | None = None  # of the PNG, which has fewer colours then


class Table(NamedTuple):
    title: str
    heads: Sequence[str]  # of the columns
    rows: Sequence[Sequence[str]]
    caption: str = ""


class Text(NamedTuple):
    title: str
    sentences: Sequence[str]


Section = Picture | Table | Text


def write(model: Published, findings: Findings, directory: Path) -> Path:
    """Draw all that there is to see of a bundle on its test images; gives the page."""
    return write_page(model, chain([metrics(model)], _pictures(model, findings)), directory)


def write_calibration(model: Published, normal: Images, directory: Path) -> Path:
    """Draw what a calibration on these images came to; gives the page."""
    calibrated = model.manifest.calibration
    assert calibrated is not None  # it has just been made
    shown = normal[: plots.COLUMNS]
    rows = {"calibration images": shown, "reconstructed": plots.reconstruct(model, shown)}
    scores = {"calibration images": np.array(calibrated.scores)}
    pictures = (
        metrics(model),
        Picture("reconstructions", "Reconstructions", "Of the first calibration images.", plots.rows(rows)),
        _scores(scores, calibrated),
    )
    return write_page(model, pictures, directory)


def write_page(model: Published, sections: Iterable[Section], directory: Path) -> Path:
    """Write the pictures as PNGs and all sections as one page, which is given."""
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / PAGE
    text = "\n".join(_html(section, directory) for section in sections)
    page.write_text(_page(model, text), encoding="utf-8")
    return page


def metrics(model: Published) -> Table:
    """The metrics of a bundle's manifest."""
    rows = [(name, f"{value:.6g}") for name, value in model.manifest.metrics.items()]
    return Table("Metrics on test images, through the exported graphs", (), rows)


def _html(section: Section, directory: Path) -> str:
    title = f"<h2>{html.escape(section.title)}</h2>"
    match section:
        case Picture():
            return f"{title}\n<p>{html.escape(section.caption)}</p>\n{_image(section, directory)}"
        case Table():
            caption = f"<p>{html.escape(section.caption)}</p>\n" if section.caption else ""
            return f"{title}\n{caption}{_table(section)}"
        case Text():
            return "\n".join([title, *(f"<p>{html.escape(sentence)}</p>" for sentence in section.sentences)])


def _image(picture: Picture, directory: Path) -> str:
    """The element that shows a picture, which is written as a PNG too."""
    path = directory / f"{picture.name}.png"
    plots.save(picture.figure, path, picture.most_bytes)
    inline = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(picture.title)}" src="data:image/png;base64,{inline}">'


def _table(table: Table) -> str:
    head = f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in table.heads)}</tr>"
    rows = [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows]
    return "\n".join(["<table>", *([head] if table.heads else []), *rows, "</table>"])


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
        noisy = graph_metrics.add_noise(shown, sigma)
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

    if classes := model.manifest.classes:
        figure = plots.confusion_matrix(findings.confusion, classes)
        yield Picture("confusion", "Confusion matrix", "Of the test images.", figure)


def _scores(scores: Mapping[str, npt.NDArray[np.floating]], calibrated: Calibration) -> Picture:
    histogram = plots.error_histogram(scores, calibrated, graph_metrics.RATES)
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
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.1rem 1.2rem 0.1rem 0; text-align: left; font-variant-numeric: tabular-nums; }}
th {{ border-bottom: 1px solid; }}
</style>
<h1>{title}</h1>
{_warning(manifest)}<p>{html.escape(manifest.description)}.<br>
{html.escape(manifest.architecture)}; {manifest.latent_dim} latent dimensions.</p>
{sections}
<h2>Recipe</h2>
<pre>{recipe}</pre>
</html>
"""


def _warning(manifest: ModelManifest) -> str:
    weak = manifest.selection.weak if manifest.selection else None
    return f"<p><strong>Warning: this detector is weak: {html.escape(weak)}.</strong></p>\n" if weak else ""
