"""Errors and similarity of reconstructions: MSE, PSNR and SSIM."""

import numpy as np
from skimage.metrics import structural_similarity

from bundle.tensors import Floats, Images


def squared_errors(images: Images, references: Images) -> Floats:
    """Mean squared error (n,) of each image on the 0..1 scale."""
    difference = images.astype(np.float32) - references.astype(np.float32)
    squared = np.square(difference / 255, dtype=np.float64)
    return np.asarray(squared.reshape(len(images), -1).mean(axis=1))


def psnr_and_ssim(images: Images, clean: Images, window: int) -> dict[str, float]:
    """Means over uint8 images of `psnr`, in dB, and `ssim`.

    SSIM has a uniform window of this side (Wang et al. 2004).
    """
    psnr = -10 * np.log10(np.maximum(squared_errors(images, clean), 1e-10))
    ssim = [
        structural_similarity(a, b, win_size=window, data_range=255, channel_axis=-1)  # type: ignore[no-untyped-call]
        for a, b in zip(clean, images, strict=True)
    ]
    return {"psnr": float(psnr.mean()), "ssim": float(np.mean(ssim))}
