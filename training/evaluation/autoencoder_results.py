"""Measurements of an autoencoder's bundle on its test images, for its metrics and report."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bundle.manifest import Calibration
from training.data.dataset import RunImages
from training.evaluation import graph_metrics
from training.evaluation.baselines import PrincipalComponents
from training.evaluation.graph_metrics import AutoencoderScores
from training.export.graph_runner import Graphs
from training.metrics import detection
from training.trainer.losses import LossConfig


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the measurements on test images."""

    seed: int
    noise: float  # standard deviation of Gaussian noise on the 0..1 scale; 0: no denoising
    binarise: bool
    likelihood: LossConfig | None  # of a variational model
    importance_samples: int  # for each image, to estimate the likelihood; 0: no estimate
    likelihood_images: int
    classify: bool
    mixture_components: int  # of a mixture that the report compares with the prior; 0: none


@dataclass(frozen=True)
class AutoencoderResults:
    """Measurements on test images; each is computed once, when it is first used."""

    graphs: Graphs
    calibration: Calibration
    images: RunImages
    settings: EvaluationSettings
    latent_dim: int

    @cached_property
    def scored(self) -> AutoencoderScores:
        """Errors and scores of the test images."""
        return graph_metrics.score(self.graphs, self.images.dataset.test.images)

    @cached_property
    def outliers_scored(self) -> AutoencoderScores | None:
        """Errors and scores of the anomalous images; None if there are none."""
        outliers = self.images.outliers
        return graph_metrics.score(self.graphs, outliers.images.images) if outliers else None

    @cached_property
    def principal_components(self) -> PrincipalComponents | None:
        """Components, as many as latent dimensions; None if pixels or images are too few."""
        training = self.images.splits.training.images
        if self.latent_dim >= min(training[0].size, len(training)):
            return None
        return PrincipalComponents(training, self.latent_dim, self.settings.seed)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts of test images by true class (row) and predicted class (column)."""
        dataset = self.images.dataset
        return graph_metrics.count_confusion(self.graphs, dataset.test, len(dataset.classes))

    def metrics(self) -> dict[str, float]:
        """The metrics, by their names in a manifest."""
        metrics = {"mse": float(self.scored.errors.mean())}
        if self.principal_components:
            metrics["pca_mse"] = self.principal_components.measure_error(
                self.images.dataset.test.images
            )
        metrics |= self._measure_denoising() | self._measure_likelihoods()
        metrics |= self._measure_classification()
        metrics |= graph_metrics.measure_false_positive_rates(self.calibration, self.scored.scores)
        return metrics | self._measure_detection()

    def _measure_denoising(self) -> dict[str, float]:
        test, pca = self.images.dataset.test.images, self.principal_components
        if not self.settings.noise:
            return {}
        metrics = graph_metrics.measure_denoising(self.graphs, test, self.settings.noise)
        return metrics | (pca.measure_denoising(test, self.settings.noise) if pca else {})

    def _measure_classification(self) -> dict[str, float]:
        training, pca = self.images.splits.training, self.principal_components
        if not self.settings.classify:
            return {}
        metrics = {"accuracy": float(self.confusion.trace() / self.confusion.sum())}
        if pca and training.labels is not None:
            metrics["pca_accuracy"] = pca.measure_accuracy(
                training.images, training.labels, self.images.dataset.test
            )
        return metrics

    def _measure_detection(self) -> dict[str, float]:
        outliers, scored = self.images.outliers, self.outliers_scored
        if outliers is None or scored is None:
            return {}
        title = f"auroc_against_{outliers.title.replace(' ', '_')}"
        return {title: detection.auroc(self.scored.scores, scored.scores)}

    def _measure_likelihoods(self) -> dict[str, float]:
        settings, images = self.settings, self.images.dataset.test.images
        if settings.likelihood is None:
            return {}
        if settings.binarise:
            images = graph_metrics.binarise(images)
        metrics = {"elbo": graph_metrics.elbo(self.graphs, images, settings.likelihood)}
        if settings.importance_samples:
            first = images[: settings.likelihood_images]
            samples = settings.importance_samples
            metrics["nll"] = graph_metrics.negative_log_likelihood(
                self.graphs, first, settings.likelihood, samples
            )
        return metrics
