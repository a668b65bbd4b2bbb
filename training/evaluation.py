"""Test figures of a bundle, measured through its exported graphs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from service.anomaly import ConformalScores
from service.manifest import Calibration
from training.calibration import RECONSTRUCT, SCORE
from training.data import Images
from training.graphs import Graphs

Floats = npt.NDArray[np.float64]

NOISE_SEED = 2026  # the test images are always corrupted by the same noise
RATES = (0.01, 0.05)


def add_noise(images: Images, sigma: float, seed: int = NOISE_SEED) -> Images:
    """Gaussian noise on the 0..1 scale, clipped, back to uint8."""
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    noisy = np.clip(images / np.float32(255) + np.float32(sigma) * noise, 0, 1)
    return np.asarray(np.rint(noisy * 255), dtype=np.uint8)


def squared_errors(images: Images, references: Images) -> Floats:
    """Mean squared error of each image on the 0..1 scale: (n,)."""
    difference = images.astype(np.float32) - references.astype(np.float32)
    squared = np.square(difference / 255, dtype=np.float64)
    return np.asarray(squared.reshape(len(images), -1).mean(axis=1))


@dataclass(frozen=True)
class Scored:
    """Mean squared errors on the 0..1 scale, before rounding to uint8, and anomaly scores: (n,) each."""

    errors: Floats
    scores: Floats


def score(graphs: Graphs, images: Images) -> Scored:
    """Reconstruct and score uint8 images (n, height, width, channels)."""
    found = graphs.chain_in_batches(SCORE, ["errors", "scores"], images=images)
    return Scored(found["errors"].astype(np.float64), found["scores"].astype(np.float64))


def denoising(graphs: Graphs, clean: Images, sigma: float) -> dict[str, float]:
    """`psnr` in dB and `ssim` (7x7 uniform window, Wang et al. 2004), each the mean over the uint8 images."""
    noisy = add_noise(clean, sigma)
    denoised = graphs.chain_in_batches(RECONSTRUCT, ["reconstructions"], images=noisy)["reconstructions"]
    psnr = -10 * np.log10(np.maximum(squared_errors(denoised, clean), 1e-10))
    ssim = [
        structural_similarity(a, b, win_size=7, data_range=255, channel_axis=-1)  # type: ignore[no-untyped-call]
        for a, b in zip(clean, denoised, strict=True)
    ]
    return {"psnr": float(psnr.mean()), "ssim": float(np.mean(ssim))}


def false_positive_rates(calibration: Calibration, normal: Floats) -> dict[str, float]:
    """The share of unseen normal images, by their scores, that is called anomalous at each of `RATES`."""
    p_values = ConformalScores(calibration).p_values(normal)
    return {f"false_positive_rate_at_{rate}": float((p_values <= rate).mean()) for rate in RATES}


def auroc(normal: Floats, outliers: Floats) -> float:
    """How well the scores tell outliers from normal images: area under the ROC curve, 0 to 1, by chance 0.5."""
    truth = np.repeat([0, 1], [len(normal), len(outliers)])
    return float(roc_auc_score(truth, np.concatenate([normal, outliers])))


def pca_error(training: Images, test: Images, components: int, seed: int) -> float:
    """Mean squared error on the 0..1 scale of principal components of the same number: what a network must beat."""
    flat, unseen = (images.reshape(len(images), -1).astype(np.float32) / 255 for images in (training, test))
    pca = PCA(components, random_state=seed).fit(flat)
    return float(np.square(pca.inverse_transform(pca.transform(unseen)) - unseen).mean())
