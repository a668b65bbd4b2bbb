"""What a bundle does on its test images: the figures of its manifest, and what its report draws."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from service.manifest import Calibration
from training import detection, evaluation
from training.data import Given
from training.detection import Baselines
from training.evaluation import Floats, PrincipalComponents, Scored
from training.graphs import Graphs
from training.losses import LIKELIHOODS
from training.recipe import Recipe


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
        return evaluation.score(self.graphs, self.given.dataset.test.images, self._marked)

    @cached_property
    def outliers_scored(self) -> Scored | None:
        """Of every strange image; None where there are none."""
        outliers = self.given.outliers
        return evaluation.score(self.graphs, outliers.images.images, self._marked) if outliers else None

    @property
    def _marked(self) -> bool:
        """Whether defects are marked in the strange images."""
        masked = self.given.outliers.masked if self.given.outliers else None
        return masked is not None and bool(masked.any())

    @cached_property
    def baselines(self) -> dict[str, tuple[Floats, Floats]]:
        """Of each simple method the scores of the normal and of the strange test images; none without strange ones."""
        if self.given.outliers is None:
            return {}
        simple = Baselines(self.given.parts.training.images, self.recipe.seed)
        normal = simple.scores(self.given.dataset.test.images)
        strange = simple.scores(self.given.outliers.images.images)
        return {name: (normal[name].astype(np.float64), strange[name].astype(np.float64)) for name in normal}

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
        return evaluation.confusion(self.graphs, self.given.dataset.test, len(self.given.dataset.classes))

    def figures(self) -> dict[str, float]:
        """By the names that they have in a manifest's `metrics`."""
        recipe, training, test = self.recipe, self.given.parts.training, self.given.dataset.test
        pca, sigma = self.principal_components, recipe.corruption.sigma
        figures = {"mse": float(self.scored.errors.mean())}
        if pca:
            figures["pca_mse"] = pca.error(test.images)
        if sigma:
            figures |= evaluation.denoising(self.graphs, test.images, sigma)
            figures |= pca.denoising(test.images, sigma) if pca else {}
        if recipe.architecture.variational and recipe.loss.kind in LIKELIHOODS:
            figures |= self._likelihoods()
        if recipe.classifier:
            figures["accuracy"] = float(self.confusion.trace() / self.confusion.sum())
            if pca and training.labels is not None:
                figures["pca_accuracy"] = pca.accuracy(training.images, training.labels, test)
        figures |= evaluation.false_positive_rates(self.calibration, self.scored.scores)
        return figures | self._detection()

    def beaten_by(self) -> list[str]:
        """The simple methods that tell strange images from normal ones better than this detector."""
        if self.outliers_scored is None or self.recipe.anomaly is None:
            return []
        own = detection.auroc(self.scored.scores, self.outliers_scored.scores)
        return [name for name, (normal, strange) in self.baselines.items() if detection.auroc(normal, strange) > own]

    def _detection(self) -> dict[str, float]:
        outliers, found, normal = self.given.outliers, self.outliers_scored, self.scored
        if outliers is None or found is None:
            return {}
        title = f"auroc_against_{outliers.title.replace(' ', '_')}"
        figures = {title: detection.auroc(normal.scores, found.scores)}
        if self.recipe.anomaly is None:
            return figures
        for name, (of_normal, of_strange) in self.baselines.items():
            figures[f"{name}_{title}"] = detection.auroc(of_normal, of_strange)
        labels = outliers.images.labels
        for label, kind in enumerate(outliers.kinds):
            if labels is not None and np.any(labels == label):
                figures[f"{title}_{kind}"] = detection.auroc(normal.scores, found.scores[labels == label])
        if self._marked:
            assert normal.maps is not None
            assert found.maps is not None
            assert outliers.masks is not None
            maps, masks = found.maps[outliers.masked], outliers.masks[outliers.masked]
            figures["pixel_auroc"] = detection.pixel_auroc(normal.maps, maps, masks)
            figures["aupro"] = detection.aupro(normal.maps, maps, masks)
        return figures

    def _likelihoods(self) -> dict[str, float]:
        recipe, images = self.recipe, self.given.dataset.test.images
        if recipe.data.binarise:
            images = evaluation.binarise(images)
        figures = {"elbo": evaluation.elbo(self.graphs, images, recipe.loss)}
        if samples := recipe.evaluation.importance_samples:
            first = images[: recipe.evaluation.images]
            figures["nll"] = evaluation.negative_log_likelihood(self.graphs, first, recipe.loss, samples)
        return figures
