"""Baselines of an autoencoder."""

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.tensors import Images, Labels
from training.data.splits import Split
from training.evaluation.graph_metrics import add_noise
from training.image_ops import SSIM_WINDOW
from training.metrics.reconstruction import psnr_and_ssim


class PrincipalComponents:
    """Principal components, as many as the latent dimensions of a network, which must beat them."""

    def __init__(self, training: Images, components: int, seed: int) -> None:
        self._shape = training.shape[1:]
        self._pca = PCA(components, random_state=seed).fit(self._flat(training))

    def reconstruct(self, images: Images) -> npt.NDArray[np.float32]:
        """Project images on the components: on the 0..1 scale, but not clipped to it."""
        restored = self._pca.inverse_transform(self._pca.transform(self._flat(images)))
        return np.asarray(restored, dtype=np.float32).reshape(-1, *self._shape)

    def measure_error(self, test: Images) -> float:
        """Mean squared error on the 0..1 scale."""
        return float(np.square(self.reconstruct(test) - test.astype(np.float32) / 255).mean())

    def measure_denoising(self, clean: Images, sigma: float) -> dict[str, float]:
        """`pca_psnr` and `pca_ssim` of noisy images, projected on the components."""
        restored = np.rint(np.clip(self.reconstruct(add_noise(clean, sigma)), 0, 1) * 255).astype(
            np.uint8
        )
        return {
            f"pca_{name}": value
            for name, value in psnr_and_ssim(restored, clean, SSIM_WINDOW).items()
        }

    def measure_accuracy(self, training: Images, labels: Labels, test: Split) -> float:
        """Accuracy of a logistic regression on the components."""
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        model.fit(self._pca.transform(self._flat(training)), labels)
        return float(model.score(self._pca.transform(self._flat(test.images)), test.labels))

    def _flat(self, images: Images) -> npt.NDArray[np.float32]:
        return np.asarray(images.reshape(len(images), -1), dtype=np.float32) / np.float32(255)
