"""Measurements of an autoencoder's bundle on its test images: its metrics, and what its report draws."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bundle.manifest import Calibration
from training.data.dataset import RunImages
from training.evaluation import graph_metrics
from training.evaluation.baselines import PrincipalComponents
from training.evaluation.graph_metrics import Scored
from training.export.graph_runner import Graphs
from training.metrics import detection
from training.trainer.losses import LossConfig


@dataclass(frozen=True)
class EvaluationPlan:
    """Settings of the measurements on test images."""

    seed: int
    noise: float  # standard deviation of the noise that is removed, on the 0..1 scale; 0: none
    binarise: bool
    likelihood: LossConfig | None  # of a variational model
    importance_samples: (
        int  # of the posterior for each image, to estimate the likelihood; 0: not at all
    )
    likelihood_images: int
    classify: bool
    mixture_components: int  # of the mixture that the report compares with the prior; 0: none


@dataclass(frozen=True)
class AutoencoderResults:
    """Each is computed once, when a metric or a picture first asks for it."""

    graphs: Graphs
    calibration: Calibration
    images: RunImages
    plan: EvaluationPlan
    latent_dim: int

    @cached_property
    def scored(self) -> Scored:
        return graph_metrics.score(self.graphs, self.images.dataset.test.images)

    @cached_property
    def outliers_scored(self) -> Scored | None:
        """Of every anomalous image; None where there are none."""
        outliers = self.images.outliers
        return graph_metrics.score(self.graphs, outliers.images.images) if outliers else None

    @cached_property
    def principal_components(self) -> PrincipalComponents | None:
        """As many as there are latent dimensions; None where these are no fewer than pixels or images."""
        training = self.images.splits.training.images
        if self.latent_dim >= min(training[0].size, len(training)):
            return None
        return PrincipalComponents(training, self.latent_dim, self.plan.seed)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """How many test images of each class (row) were given each class (column)."""
        dataset = self.images.dataset
        return graph_metrics.confusion(self.graphs, dataset.test, len(dataset.classes))

    def metrics(self) -> dict[str, float]:
        """By the names that they have in a manifest's `metrics`."""
        metrics = {"mse": float(self.scored.errors.mean())}
        if self.principal_components:
            metrics["pca_mse"] = self.principal_components.error(self.images.dataset.test.images)
        metrics |= self._denoising() | self._likelihoods() | self._classification()
        metrics |= graph_metrics.false_positive_rates(self.calibration, self.scored.scores)
        return metrics | self._detection()

    def _denoising(self) -> dict[str, float]:
        test, pca = self.images.dataset.test.images, self.principal_components
        if not self.plan.noise:
            return {}
        metrics = graph_metrics.denoising(self.graphs, test, self.plan.noise)
        return metrics | (pca.denoising(test, self.plan.noise) if pca else {})

    def _classification(self) -> dict[str, float]:
        training, pca = self.images.splits.training, self.principal_components
        if not self.plan.classify:
            return {}
        metrics = {"accuracy": float(self.confusion.trace() / self.confusion.sum())}
        if pca and training.labels is not None:
            metrics["pca_accuracy"] = pca.accuracy(
                training.images, training.labels, self.images.dataset.test
            )
        return metrics

    def _detection(self) -> dict[str, float]:
        outliers, found = self.images.outliers, self.outliers_scored
        if outliers is None or found is None:
            return {}
        title = f"auroc_against_{outliers.title.replace(' ', '_')}"
        return {title: detection.auroc(self.scored.scores, found.scores)}

    def _likelihoods(self) -> dict[str, float]:
        plan, images = self.plan, self.images.dataset.test.images
        if plan.likelihood is None:
            return {}
        if plan.binarise:
            images = graph_metrics.binarise(images)
        metrics = {"elbo": graph_metrics.elbo(self.graphs, images, plan.likelihood)}
        if plan.importance_samples:
            first = images[: plan.likelihood_images]
            samples = plan.importance_samples
            metrics["nll"] = graph_metrics.negative_log_likelihood(
                self.graphs, first, plan.likelihood, samples
            )
        return metrics
