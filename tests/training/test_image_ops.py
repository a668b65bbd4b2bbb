import numpy as np
import torch
from skimage.metrics import structural_similarity

from training.image_ops import ssim


def test_ssim_is_that_of_scikit_image() -> None:
    images, references = np.random.default_rng(0).random((2, 3, 28, 28, 1))
    images[1] = references[1]
    expected = [
        structural_similarity(a, b, win_size=7, data_range=1.0, channel_axis=-1)  # type: ignore[no-untyped-call]
        for a, b in zip(images, references, strict=True)
    ]
    found = ssim(*(torch.from_numpy(array).permute(0, 3, 1, 2) for array in (images, references)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
