"""The README's pictures."""

from pathlib import Path

from bundle.conformal import RATES, ConformalScores, as_text, can_tell
from bundle.manifest import Calibration
from bundle.tensors import Images
from training.data import mnist
from training.data.image_set import Photographs
from training.evaluation import detector_examples as examples
from training.evaluation import detector_plots as plots
from training.evaluation.graph_metrics import add_noise
from training.evaluation.plots import (
    COLUMNS,
    SAMPLE_SEED,
    decode,
    heatmaps,
    reconstruct,
    rows,
    save,
)
from training.export.published import newest
from training.progress import silence


def draw_digits(models: Path, directory: Path | None, output: Path) -> None:
    """Draw originals, reconstructions, denoised digits, samples, and an outlier's heatmap, as one PNG."""
    originals = mnist.load_test("mnist", directory).images[:COLUMNS]
    undercomplete, denoising, vae = (
        newest(models, f"mnist-{name}") for name in ("undercomplete", "denoising", "vae")
    )
    noisy = add_noise(originals, sigma=0.5)
    blended = _blend_stroke(originals)
    figure = rows(
        {
            "originals": originals,
            "reconstructed (784-256-784)": reconstruct(undercomplete, originals),
            "noisy": noisy,
            "denoised": reconstruct(denoising, noisy),
            "sampled (VAE)": decode(vae, vae.prior.draw(COLUMNS, SAMPLE_SEED, temperature=1.0)),
            "with a stroke that does not belong": blended,
            "heatmap (VAE)": heatmaps(vae, blended),
        },
        hot=["heatmap (VAE)"],
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    save(figure, output)


def _blend_stroke(images: Images) -> Images:
    """Each digit with a short stroke where none belongs."""
    blended = images.copy()
    blended[:, 4:8, 20:23] = 255
    return blended


OVERVIEW = "cookies"  # the model of the README's picture
OVERVIEW_HEIGHT, OVERVIEW_BYTES = 384, 250_000  # pixels of the photograph; bytes


def draw_detector(models: Path, photograph: Path, output: Path) -> None:
    """Draw a photograph, the heatmap over it and the verdict of the newest `cookies`, as one PNG.

    Raises DataError where there is no such model, or the photograph is unreadable.
    """
    model = newest(models, OVERVIEW)
    spec, calibrated, images = (
        model.manifest.input,
        model.manifest.calibration,
        Photographs((photograph,)),
    )
    assert calibrated is not None  # it is a detector
    (score,), (error_map,) = examples.score(model.graphs, images.read(spec, silence))
    height, width = examples.own_size(images, spec)
    size = OVERVIEW_HEIGHT, round(width * OVERVIEW_HEIGHT / height)
    image = examples.read_at(images, size, spec)
    drawn = plots.draw_overlay(image, error_map, calibrated, spec)
    output.parent.mkdir(parents=True, exist_ok=True)
    save(plots.verdict(image, drawn, _sentences(float(score), calibrated)), output, OVERVIEW_BYTES)


def _sentences(score: float, calibrated: Calibration) -> list[str]:
    """The verdict at the lowest false positive rate at which an image is anomalous, else at the default rate."""
    conformal, count = ConformalScores(calibrated), len(calibrated.scores)
    rates = [rate for rate in RATES if can_tell(count, rate)]
    p_value = conformal.p_value(score)
    rate = next((rate for rate in rates if p_value <= rate), conformal.default_rate)
    higher = round(p_value * (count + 1)) - 1
    return [
        "anomalous" if p_value <= rate else "not anomalous",
        f"at a false positive rate of {as_text(rate)}",
        f"score {score:.2f}, p-value {p_value:.2g}:",
        f"{higher} of {count} normal images score as high",
        "white boxes: anomalous regions",
    ]
