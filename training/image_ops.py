"""Operations on tensors of images: scale, structural similarity."""

from torch import Tensor
from torch.nn import functional

SSIM_WINDOW = 7  # pixels: the side


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 (n, height, width, channels) to float (n, channels, height, width) in 0..1."""
    return images.permute(0, 3, 1, 2) / 255


def ssim(images: Tensor, references: Tensor) -> Tensor:
    """Structural similarity (n,) of images (n, channels, height, width) in 0..1.

    The window is 7x7 and uniform. Wang et al. 2004, equation 13, with the unbiased variances of
    scikit-image.
    """

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, SSIM_WINDOW, stride=1)

    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    a, b = mean(images), mean(references)
    variances = unbiased * (
        mean(images.square()) - a.square() + mean(references.square()) - b.square()
    )
    covariance = unbiased * (mean(images * references) - a * b)
    c1, c2 = 0.01**2, 0.03**2
    similarity = (
        (2 * a * b + c1)
        * (2 * covariance + c2)
        / ((a.square() + b.square() + c1) * (variances + c2))
    )
    return similarity.mean(dim=(1, 2, 3))
