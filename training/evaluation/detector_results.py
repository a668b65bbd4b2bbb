"""Measurements of a published detector and of baselines on labelled test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bundle.conformal import RATES, ConformalScores, allows_rate
from bundle.manifest import Calibration, InputSpec
from bundle.tensors import Images
from training.data.image_set import DetectorData, PhotoInput
from training.detector import fitters
from training.detector.components import BASELINES, ComponentName
from training.detector.cross_fitting import score
from training.detector.image_features import ImageFeatures
from training.detector.trials import Trials
from training.export.graph_runner import Graphs
from training.metrics.detection import aupro, auroc, pixel_auroc, standard_error
from training.progress import silence

BANK_ENTRIES = 2000  # of the baseline with a memory bank

Floats = npt.NDArray[np.float32]


class DetectorScores(NamedTuple):
    """Scores (n,) and anomaly maps (n, height, width) of images."""

    scores: Floats
    maps: Floats


@dataclass(frozen=True)
class DetectorResults:
    """Measurements on test images; each is computed once, when it is first used."""

    graphs: Graphs
    calibration: Calibration
    spec: InputSpec
    data: DetectorData
    photo_input: PhotoInput
    seed: int
    trials: Trials | None = None  # of a detector that has just been trained

    @cached_property
    def test_images(self) -> Images:
        """The normal test images."""
        return self.data.test.read(self.spec, silence)

    @cached_property
    def anomalous_images(self) -> Images | None:
        """The anomalous test images; None if there are none."""
        return self.data.anomalous.images.read(self.spec, silence) if self.data.anomalous else None

    @cached_property
    def test(self) -> DetectorScores | None:
        """Scores of the normal test images; None if there are none."""
        return self._score(self.test_images) if len(self.data.test) else None

    @cached_property
    def anomalous(self) -> DetectorScores | None:
        """Scores of the anomalous test images; None if there are none."""
        return None if self.anomalous_images is None else self._score(self.anomalous_images)

    @cached_property
    def masks(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
        """Masks (n, height, width), and (n,) true if an image has one; None if no image has one."""
        if self.data.anomalous is None:
            return None
        masks, masked = self.data.anomalous.read_masks(self.spec.shape[:2])
        return (masks, masked) if masked.any() else None

    @cached_property
    def baselines(self) -> Mapping[ComponentName, tuple[Floats, Floats]]:
        """Scores by baselines on pixels, of the normal and of the anomalous test images."""
        if self.data.anomalous is None or not len(self.data.test):
            return {}
        spec = self.photo_input.spec(self.data.sizes[0])
        training, test, anomalous = (
            ImageFeatures.from_arrays({"images": images.read(spec, silence)})
            for images in (self.data.training, self.data.test, self.data.anomalous.images)
        )
        fitted = {name: fitters.fit(name, training, BANK_ENTRIES, self.seed) for name in BASELINES}
        return {
            name: (score(component, test).scores, score(component, anomalous).scores)
            for name, component in fitted.items()
        }

    def metrics(self) -> dict[str, float]:
        """The metrics, by their names in a manifest."""
        metrics: dict[str, float] = {}
        if self.test is not None:
            p_values = ConformalScores(self.calibration).p_values(self.test.scores)
            for rate in RATES:
                if allows_rate(len(self.calibration.scores), rate):
                    metrics[f"false_positive_rate_at_{rate}"] = float((p_values <= rate).mean())
        return metrics | self._measure_detection()

    def _measure_detection(self) -> dict[str, float]:
        anomalous, normal, scored = self.data.anomalous, self.test, self.anomalous
        if anomalous is None or normal is None or scored is None:
            return {}
        title = f"auroc_against_{anomalous.title.replace(' ', '_')}"
        area = auroc(normal.scores, scored.scores)
        metrics = {
            title: area,
            f"{title}_se": standard_error(area, len(normal.scores), len(scored.scores)),
        }
        for name, scores in self.baselines.items():
            metrics[name_baseline_metric(name, title)] = auroc(*scores)
        for label, kind in enumerate(anomalous.kinds):
            if np.any(anomalous.labels == label):
                metrics[f"{title}_{kind}"] = auroc(
                    normal.scores, scored.scores[anomalous.labels == label]
                )
        return metrics | self._measure_maps(normal, scored)

    def _measure_maps(self, normal: DetectorScores, anomalous: DetectorScores) -> dict[str, float]:
        if self.masks is None:
            return {}
        masks, masked = self.masks
        maps = anomalous.maps[masked]
        return {
            "pixel_auroc": pixel_auroc(normal.maps, maps, masks[masked]),
            "aupro": aupro(normal.maps, maps, masks[masked]),
        }

    def _score(self, images: Images) -> DetectorScores:
        return score_images(self.graphs, images)


def score_images(graphs: Graphs, images: Images) -> DetectorScores:
    """Score images uint8 (n, height, width, channels) by published graphs."""
    outputs = graphs.chain_in_batches(graphs.scoring, ["scores", "error_maps"], images=images)
    return DetectorScores(outputs["scores"], outputs["error_maps"])


def name_baseline_metric(name: ComponentName, title: str) -> str:
    """Name the AUROC of a baseline; `title` is the metric of the detector."""
    return f"{name.replace('-', '_')}_{title}"
