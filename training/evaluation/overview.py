"""Pictures of the README."""

from pathlib import Path

from bundle.conformal import RATES, ConformalScores, allows_rate, format_rate
from bundle.manifest import Calibration
from bundle.tensors import Images
from training.data import mnist
from training.data.image_set import Photographs
from training.evaluation import detector_examples as examples
from training.evaluation import detector_plots as plots
from training.evaluation.detector_results import score_images
from training.evaluation.graph_metrics import add_noise
from training.evaluation.plots import (
    COLUMNS,
    SAMPLE_SEED,
    compute_heatmaps,
    decode,
    draw_rows,
    reconstruct,
    save,
)
from training.export.published import load_newest
from training.progress import silence


def draw_digits(models: Path, directory: Path | None, output: Path) -> None:
    """Draw reconstructions, denoised digits, samples, and the heatmap of an outlier, as one PNG."""
    originals = mnist.load_test("mnist", directory).images[:COLUMNS]
    undercomplete, denoising, vae = (
        load_newest(models, f"mnist-{name}") for name in ("undercomplete", "denoising", "vae")
    )
    noisy = add_noise(originals, sigma=0.5)
    blended = _blend_stroke(originals)
    figure = draw_rows(
        {
            "originals": originals,
            "reconstructed (784-256-784)": reconstruct(undercomplete, originals),
            "noisy": noisy,
            "denoised": reconstruct(denoising, noisy),
            "sampled (VAE)": decode(vae, vae.prior.draw(COLUMNS, SAMPLE_SEED, temperature=1.0)),
            "with a stroke that does not belong": blended,
            "heatmap (VAE)": compute_heatmaps(vae, blended),
        },
        hot=["heatmap (VAE)"],
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    save(figure, output)


def _blend_stroke(images: Images) -> Images:
    """Add a short stroke to each digit, at a position without strokes."""
    blended = images.copy()
    blended[:, 4:8, 20:23] = 255
    return blended


OVERVIEW_MODEL = "cookies"
OVERVIEW_HEIGHT_PIXELS, OVERVIEW_BYTES = 384, 250_000


def draw_detector(models: Path, photograph: Path, output: Path) -> None:
    """Draw a photograph, its heatmap, and the verdict of the newest `cookies`, as one PNG.

    Raises DataError if there is no such model, it has no anomaly score, or the photograph is
    unreadable.
    """
    model, images = load_newest(models, OVERVIEW_MODEL), Photographs((photograph,))
    spec, calibrated = model.manifest.input, model.require_calibration()
    (score,), (error_map,) = score_images(model.graphs, images.read(spec, silence))
    height, width = examples.read_size(images, spec)
    size = OVERVIEW_HEIGHT_PIXELS, round(width * OVERVIEW_HEIGHT_PIXELS / height)
    image = examples.read_at(images, size, spec)
    drawn = plots.draw_overlay(image, error_map, calibrated, spec)
    output.parent.mkdir(parents=True, exist_ok=True)
    save(
        plots.draw_verdict(image, drawn, _format_verdict(float(score), calibrated)),
        output,
        OVERVIEW_BYTES,
    )


def _format_verdict(score: float, calibrated: Calibration) -> list[str]:
    """The verdict at the lowest rate at which an image is anomalous, else at the default rate."""
    conformal, count = ConformalScores(calibrated), len(calibrated.scores)
    rates = [rate for rate in RATES if allows_rate(count, rate)]
    p_value = conformal.p_value(score)
    rate = next((rate for rate in rates if p_value <= rate), conformal.default_rate)
    higher = round(p_value * (count + 1)) - 1
    return [
        "anomalous" if p_value <= rate else "not anomalous",
        f"at a false positive rate of {format_rate(rate)}",
        f"score {score:.2f}, p-value {p_value:.2g}:",
        f"{higher} of {count} normal images score as high",
        "white boxes: anomalous regions",
    ]
