"""Measurements of a published detector on labelled test images, beside those of one-minute baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bundle.conformal import RATES, ConformalScores, can_tell
from bundle.manifest import Calibration, InputSpec
from bundle.tensors import Images
from training.data.image_set import DetectorData, PhotoInput
from training.detector import fitters
from training.detector.components import BASELINES, ComponentName
from training.detector.cross_fitting import score
from training.detector.scene import Scenes
from training.detector.trials import Trials
from training.export.graph_runner import Graphs
from training.metrics.detection import aupro, auroc, pixel_auroc, standard_error
from training.progress import silence

BANK = 2000  # entries of the baseline's memory bank

Floats = npt.NDArray[np.float32]


class Scored(NamedTuple):
    """Scores (n,) and anomaly maps (n, height, width) of images."""

    scores: Floats
    maps: Floats


@dataclass(frozen=True)
class DetectorResults:
    """Each is computed once, when a metric or a picture first asks for it."""

    graphs: Graphs
    calibration: Calibration
    spec: InputSpec
    data: DetectorData
    photo_input: PhotoInput
    seed: int
    trials: Trials | None = None  # of a detector that has just been trained

    @cached_property
    def test_images(self) -> Images:
        return self.data.test.read(self.spec, silence)

    @cached_property
    def anomalous_images(self) -> Images | None:
        return self.data.anomalous.images.read(self.spec, silence) if self.data.anomalous else None

    @cached_property
    def test(self) -> Scored | None:
        """Of the normal test images; None where there are none."""
        return self._score(self.test_images) if len(self.data.test) else None

    @cached_property
    def anomalous(self) -> Scored | None:
        """Of the anomalous test images; None where there are none."""
        return None if self.anomalous_images is None else self._score(self.anomalous_images)

    @cached_property
    def masks(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
        """Masks (n, height, width) of the anomalous images, and which have one (n,); None where none has."""
        if self.data.anomalous is None:
            return None
        masks, masked = self.data.anomalous.read_masks(self.spec.shape[:2])
        return (masks, masked) if masked.any() else None

    @cached_property
    def baselines(self) -> Mapping[ComponentName, tuple[Floats, Floats]]:
        """Scores of the normal and of the anomalous test images by simple methods on pixels."""
        if self.data.anomalous is None or not len(self.data.test):
            return {}
        spec = self.photo_input.spec(self.data.sizes[0])
        training, test, anomalous = (
            Scenes.of({"images": images.read(spec, silence)})
            for images in (self.data.training, self.data.test, self.data.anomalous.images)
        )
        fitted = {name: fitters.fit(name, training, BANK, self.seed) for name in BASELINES}
        return {
            name: (score(each, test).scores, score(each, anomalous).scores)
            for name, each in fitted.items()
        }

    def metrics(self) -> dict[str, float]:
        """By the names that they have in a manifest's `metrics`."""
        metrics: dict[str, float] = {}
        if self.test is not None:
            p_values = ConformalScores(self.calibration).p_values(self.test.scores)
            for rate in RATES:
                if can_tell(len(self.calibration.scores), rate):
                    metrics[f"false_positive_rate_at_{rate}"] = float((p_values <= rate).mean())
        return metrics | self._detection()

    def _detection(self) -> dict[str, float]:
        anomalous, normal, found = self.data.anomalous, self.test, self.anomalous
        if anomalous is None or normal is None or found is None:
            return {}
        title = f"auroc_against_{anomalous.title.replace(' ', '_')}"
        area = auroc(normal.scores, found.scores)
        metrics = {
            title: area,
            f"{title}_se": standard_error(area, len(normal.scores), len(found.scores)),
        }
        for name, scores in self.baselines.items():
            metrics[baseline_metric(name, title)] = auroc(*scores)
        for label, kind in enumerate(anomalous.kinds):
            if np.any(anomalous.labels == label):
                metrics[f"{title}_{kind}"] = auroc(
                    normal.scores, found.scores[anomalous.labels == label]
                )
        if self.masks is not None:
            masks, masked = self.masks
            metrics["pixel_auroc"] = pixel_auroc(normal.maps, found.maps[masked], masks[masked])
            metrics["aupro"] = aupro(normal.maps, found.maps[masked], masks[masked])
        return metrics

    def _score(self, images: Images) -> Scored:
        found = self.graphs.chain_in_batches(
            self.graphs.scoring, ["scores", "error_maps"], images=images
        )
        return Scored(found["scores"], found["error_maps"])


def baseline_metric(name: ComponentName, title: str) -> str:
    """The name of a baseline's AUROC, beside the detector's own `title`."""
    return f"{name.replace('-', '_')}_{title}"
