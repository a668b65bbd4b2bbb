"""Test metrics of a bundle, measured through its exported graphs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp
from sklearn.metrics import confusion_matrix

from bundle.conformal import ConformalScores
from bundle.manifest import Calibration
from bundle.tensors import Images, Tensors
from training import progress
from training.data.splits import Split
from training.export.graph_runner import BATCH_IMAGES, RECONSTRUCTION_GRAPHS, Graphs
from training.image_ops import SSIM_WINDOW
from training.metrics.reconstruction import psnr_and_ssim
from training.trainer.losses import LossConfig, log_likelihood

Floats = npt.NDArray[np.float64]
NOISE_SEED = 2026  # the same random numbers corrupt, binarise and encode the test images each time
REPORTED_RATES = (0.01, 0.05)


def add_noise(images: Images, sigma: float, seed: int = NOISE_SEED) -> Images:
    """Add Gaussian noise on the 0..1 scale, clip, and round to uint8."""
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    noisy = np.clip(images / np.float32(255) + np.float32(sigma) * noise, 0, 1)
    return np.asarray(np.rint(noisy * 255), dtype=np.uint8)


def binarise(images: Images, seed: int = NOISE_SEED) -> Images:
    """Draw 0 or 255, with the intensity as probability (Salakhutdinov and Murray 2008)."""
    drawn = np.random.default_rng(seed).random(images.shape, dtype=np.float32)
    return np.asarray(np.where(drawn * 255 < images, 255, 0), dtype=np.uint8)


@dataclass(frozen=True)
class AutoencoderScores:
    """Mean squared errors (n,) on the 0..1 scale, not rounded to uint8, and anomaly scores (n,)."""

    errors: Floats
    scores: Floats


def score(graphs: Graphs, images: Images) -> AutoencoderScores:
    """Reconstruct and score uint8 images (n, height, width, channels)."""
    outputs = graphs.chain_in_batches(graphs.scoring, ["errors", "scores"], images=images)
    errors, scores = (outputs[name].astype(np.float64) for name in ("errors", "scores"))
    return AutoencoderScores(errors, scores)


def measure_denoising(graphs: Graphs, clean: Images, sigma: float) -> dict[str, float]:
    """`psnr` and `ssim` of denoised images."""
    noisy = add_noise(clean, sigma)
    denoised = graphs.chain_in_batches(RECONSTRUCTION_GRAPHS, ["reconstructions"], images=noisy)[
        "reconstructions"
    ]
    return psnr_and_ssim(denoised, clean, SSIM_WINDOW)


def elbo(graphs: Graphs, images: Images, likelihood: LossConfig, seed: int = NOISE_SEED) -> float:
    """Mean evidence lower bound in nats, with one sample for each image.

    Kingma and Welling 2014, equation 3.
    """
    generator = np.random.default_rng(seed)
    total = 0.0
    for start in range(0, len(images), BATCH_IMAGES):
        batch = images[start : start + BATCH_IMAGES]
        encoded = graphs.chain(["encoder"], images=batch)
        mean, log_variance = encoded["latents"], encoded["log_variances"]
        noise = generator.standard_normal(mean.shape, dtype=np.float32)
        latents = mean + np.exp(log_variance / 2) * noise
        likelihoods = _measure_log_likelihoods(graphs, latents, batch, likelihood)
        divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
        total += float((likelihoods - divergence).sum())
    return total / len(images)


def negative_log_likelihood(
    graphs: Graphs, images: Images, likelihood: LossConfig, samples: int, seed: int = NOISE_SEED
) -> float:
    """Mean in nats, estimated from `samples` of the posterior for each image.

    Burda et al. 2016, section 2.
    """
    generator = np.random.default_rng(seed)
    estimates = []
    with progress.open_bar(len(images), f"likelihood, {samples} samples each", "image") as bar:
        for image in images:
            estimates.append(
                _estimate_log_likelihood(graphs, image[None], likelihood, samples, generator)
            )
            bar.update()
    return float(-np.mean(estimates))


def _estimate_log_likelihood(
    graphs: Graphs,
    image: Images,
    likelihood: LossConfig,
    samples: int,
    generator: np.random.Generator,
) -> float:
    """Importance-weighted estimate in nats for one image (1, height, width, channels)."""
    encoded = graphs.chain(["encoder"], images=image)
    mean, log_variance = encoded["latents"], encoded["log_variances"]
    noise = generator.standard_normal((samples, mean.shape[1]), dtype=np.float32)
    latents = mean + np.exp(log_variance / 2) * noise
    batches = [latents[start : start + BATCH_IMAGES] for start in range(0, samples, BATCH_IMAGES)]
    likelihoods = np.concatenate(
        [_measure_log_likelihoods(graphs, batch, image, likelihood) for batch in batches]
    )
    # The constants of prior and posterior cancel.
    log_prior = -0.5 * np.square(latents, dtype=np.float64).sum(axis=1)
    log_posterior = -0.5 * (np.square(noise, dtype=np.float64) + log_variance).sum(axis=1)
    return float(logsumexp(likelihoods + log_prior - log_posterior) - np.log(samples))


def _measure_log_likelihoods(
    graphs: Graphs, latents: npt.NDArray[Any], images: Images, likelihood: LossConfig
) -> Floats:
    """Log-likelihoods (n,) in nats of each image, or of one image, given each latent."""
    logits = graphs.chain(["decoder"], latents=latents)["logits"]
    targets = torch.from_numpy(images).float() / 255
    pixels = log_likelihood(torch.from_numpy(logits), targets, likelihood)
    return np.asarray(pixels.sum(dim=(1, 2, 3), dtype=torch.float64).numpy())


def count_confusion(graphs: Graphs, test: Split, classes: int) -> npt.NDArray[np.int64]:
    """Counts of images by true class (row) and predicted class (column)."""
    outputs: Tensors = graphs.chain_in_batches(
        ["encoder", "classifier"], ["probabilities"], images=test.images
    )
    return np.asarray(
        confusion_matrix(
            test.require_labels(), outputs["probabilities"].argmax(axis=1), labels=range(classes)
        ),
        dtype=np.int64,
    )


def measure_false_positive_rates(calibration: Calibration, normal: Floats) -> dict[str, float]:
    """Share of held-out normal images called anomalous at each of `REPORTED_RATES`."""
    p_values = ConformalScores(calibration).p_values(normal)
    return {
        f"false_positive_rate_at_{rate}": float((p_values <= rate).mean())
        for rate in REPORTED_RATES
    }
