"""Test figures of a bundle, measured through its exported graphs."""

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
from training.export.graph_runner import BATCH, RECONSTRUCT, Graphs
from training.image_ops import SSIM_WINDOW
from training.metrics.reconstruction import psnr_and_ssim
from training.trainer.losses import LossConfig, log_likelihood

Floats = npt.NDArray[np.float64]
NOISE_SEED = (
    2026  # the test images are always corrupted, binarised and encoded with the same chance
)
RATES = (0.01, 0.05)


def add_noise(images: Images, sigma: float, seed: int = NOISE_SEED) -> Images:
    """Gaussian noise on the 0..1 scale, clipped, back to uint8."""
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    noisy = np.clip(images / np.float32(255) + np.float32(sigma) * noise, 0, 1)
    return np.asarray(np.rint(noisy * 255), dtype=np.uint8)


def binarise(images: Images, seed: int = NOISE_SEED) -> Images:
    """0 or 255, the latter with the probability of the intensity (Salakhutdinov and Murray 2008)."""
    chance = np.random.default_rng(seed).random(images.shape, dtype=np.float32)
    return np.asarray(np.where(chance * 255 < images, 255, 0), dtype=np.uint8)


@dataclass(frozen=True)
class Scored:
    """Mean squared errors on the 0..1 scale, before rounding to uint8, and anomaly scores: (n,) each."""

    errors: Floats
    scores: Floats


def score(graphs: Graphs, images: Images) -> Scored:
    """Reconstruct and score uint8 images (n, height, width, channels)."""
    found = graphs.chain_in_batches(graphs.scoring, ["errors", "scores"], images=images)
    return Scored(found["errors"].astype(np.float64), found["scores"].astype(np.float64))


def denoising(graphs: Graphs, clean: Images, sigma: float) -> dict[str, float]:
    """`psnr` and `ssim` of the images that were denoised."""
    noisy = add_noise(clean, sigma)
    denoised = graphs.chain_in_batches(RECONSTRUCT, ["reconstructions"], images=noisy)[
        "reconstructions"
    ]
    return psnr_and_ssim(denoised, clean, SSIM_WINDOW)


def elbo(graphs: Graphs, images: Images, likelihood: LossConfig, seed: int = NOISE_SEED) -> float:
    """The mean evidence lower bound in nats, one sample for each image (Kingma and Welling 2014, equation 3)."""
    generator = np.random.default_rng(seed)
    total = 0.0
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        encoded = graphs.chain(["encoder"], images=part)
        mean, log_variance = encoded["latents"], encoded["log_variances"]
        noise = generator.standard_normal(mean.shape, dtype=np.float32)
        found = _log_likelihoods(graphs, mean + np.exp(log_variance / 2) * noise, part, likelihood)
        divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
        total += float((found - divergence).sum())
    return total / len(images)


def negative_log_likelihood(
    graphs: Graphs, images: Images, likelihood: LossConfig, samples: int, seed: int = NOISE_SEED
) -> float:
    """In nats, estimated from `samples` of the posterior for each image: the mean (Burda et al. 2016, section 2)."""
    generator = np.random.default_rng(seed)
    estimates = []
    with progress.bar(len(images), f"likelihood, {samples} samples each", "image") as bar:
        for image in images:
            encoded = graphs.chain(["encoder"], images=image[None])
            mean, log_variance = encoded["latents"], encoded["log_variances"]
            noise = generator.standard_normal((samples, mean.shape[1]), dtype=np.float32)
            latents = mean + np.exp(log_variance / 2) * noise
            found = np.concatenate(
                [
                    _log_likelihoods(
                        graphs, latents[start : start + BATCH], image[None], likelihood
                    )
                    for start in range(0, samples, BATCH)
                ]
            )
            log_prior = -0.5 * np.square(latents, dtype=np.float64).sum(
                axis=1
            )  # the constants of both cancel
            log_posterior = -0.5 * (np.square(noise, dtype=np.float64) + log_variance).sum(axis=1)
            estimates.append(logsumexp(found + log_prior - log_posterior) - np.log(samples))
            bar.update()
    return float(-np.mean(estimates))


def _log_likelihoods(
    graphs: Graphs, latents: npt.NDArray[Any], images: Images, likelihood: LossConfig
) -> Floats:
    """(n,): of each image, or of one image, given each of the latents, in nats."""
    logits = graphs.chain(["decoder"], latents=latents)["logits"]
    targets = torch.from_numpy(images).float() / 255
    pixels = log_likelihood(torch.from_numpy(logits), targets, likelihood)
    return np.asarray(pixels.sum(dim=(1, 2, 3), dtype=torch.float64).numpy())


def confusion(graphs: Graphs, test: Split, classes: int) -> npt.NDArray[np.int64]:
    """How many images of each class (row) were given each class (column)."""
    assert test.labels is not None
    chain: Tensors = graphs.chain_in_batches(
        ["encoder", "classifier"], ["probabilities"], images=test.images
    )
    return np.asarray(
        confusion_matrix(test.labels, chain["probabilities"].argmax(axis=1), labels=range(classes)),
        dtype=np.int64,
    )


def false_positive_rates(calibration: Calibration, normal: Floats) -> dict[str, float]:
    """The share of unseen normal images, by their scores, that is called anomalous at each of `RATES`."""
    p_values = ConformalScores(calibration).p_values(normal)
    return {f"false_positive_rate_at_{rate}": float((p_values <= rate).mean()) for rate in RATES}
