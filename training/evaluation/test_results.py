"""What a bundle does on its test images: the figures of its manifest, and what its report draws."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bundle.manifest import Calibration
from training.data.dataset import Given
from training.evaluation import graph_metrics
from training.evaluation.baselines import PrincipalComponents
from training.evaluation.graph_metrics import Scored
from training.export.graph_runner import Graphs
from training.metrics import detection
from training.recipe import Recipe
from training.trainer.losses import LIKELIHOODS


@dataclass(frozen=True)
class Findings:
    """Each is computed once, when a figure or a picture first asks for it."""

    graphs: Graphs
    calibration: Calibration
    given: Given
    recipe: Recipe
    latent_dim: int

    @cached_property
    def scored(self) -> Scored:
        return graph_metrics.score(self.graphs, self.given.dataset.test.images)

    @cached_property
    def outliers_scored(self) -> Scored | None:
        """Of every strange image; None where there are none."""
        outliers = self.given.outliers
        return graph_metrics.score(self.graphs, outliers.images.images) if outliers else None

    @cached_property
    def principal_components(self) -> PrincipalComponents | None:
        """As many as there are latent dimensions; None where these are no fewer than pixels or images."""
        training = self.given.parts.training.images
        if self.latent_dim >= min(training[0].size, len(training)):
            return None
        return PrincipalComponents(training, self.latent_dim, self.recipe.seed)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """How many test images of each class (row) were given each class (column)."""
        return graph_metrics.confusion(self.graphs, self.given.dataset.test, len(self.given.dataset.classes))

    def figures(self) -> dict[str, float]:
        """By the names that they have in a manifest's `metrics`."""
        recipe, training, test = self.recipe, self.given.parts.training, self.given.dataset.test
        pca, sigma = self.principal_components, recipe.corruption.sigma
        figures = {"mse": float(self.scored.errors.mean())}
        if pca:
            figures["pca_mse"] = pca.error(test.images)
        if sigma:
            figures |= graph_metrics.denoising(self.graphs, test.images, sigma)
            figures |= pca.denoising(test.images, sigma) if pca else {}
        if recipe.architecture.variational and recipe.loss.kind in LIKELIHOODS:
            figures |= self._likelihoods()
        if recipe.classifier:
            figures["accuracy"] = float(self.confusion.trace() / self.confusion.sum())
            if pca and training.labels is not None:
                figures["pca_accuracy"] = pca.accuracy(training.images, training.labels, test)
        figures |= graph_metrics.false_positive_rates(self.calibration, self.scored.scores)
        return figures | self._detection()

    def _detection(self) -> dict[str, float]:
        outliers, found = self.given.outliers, self.outliers_scored
        if outliers is None or found is None:
            return {}
        title = f"auroc_against_{outliers.title.replace(' ', '_')}"
        return {title: detection.auroc(self.scored.scores, found.scores)}

    def _likelihoods(self) -> dict[str, float]:
        recipe, images = self.recipe, self.given.dataset.test.images
        if recipe.data.binarise:
            images = graph_metrics.binarise(images)
        figures = {"elbo": graph_metrics.elbo(self.graphs, images, recipe.loss)}
        if samples := recipe.evaluation.importance_samples:
            first = images[: recipe.evaluation.images]
            figures["nll"] = graph_metrics.negative_log_likelihood(self.graphs, first, recipe.loss, samples)
        return figures
