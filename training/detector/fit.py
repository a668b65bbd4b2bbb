"""Fit of a scorer to normal images, and the held-out scores that calibrate it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from training import progress
from training.detector import fitters, selection
from training.detector.components import MEMORY_BANKS, Component, ComponentName, ComponentNames
from training.detector.config import DetectorConfig
from training.detector.cross_fitting import Floats, Scores, assign_folds, cross_score, score
from training.detector.image_features import ImageFeatures
from training.detector.scorer import DetectorScorer, Scale
from training.detector.trials import Choice
from training.detector.whitening import LatentDistance
from training.progress import Log


@dataclass(frozen=True)
class FittedDetector:
    """A scorer, and its scores, anomaly maps and latent distances of held-out normal images.

    Scores and distances are (n,), maps (n, rows, columns).
    """

    scorer: DetectorScorer
    scores: Floats
    maps: Floats
    latent_distances: Floats


@torch.no_grad()
def fit(
    choice: Choice,
    encoded: ImageFeatures,
    held_out: ImageFeatures | None,
    config: DetectorConfig,
    seed: int,
    log: Log,
) -> FittedDetector:
    """Fit the chosen components to normal images, and score `held_out` images.

    Without held-out images, cross-fitting scores the normal images: cross-conformal prediction
    (Vovk 2015, section 2.2). The published components are fitted to all normal images.
    """
    log(_describe_calibration(encoded, held_out, config))
    mapped = choose_map_component(choice.names, config)
    folds = assign_folds(len(encoded), config.folds, seed)
    fitted: dict[ComponentName, Component] = {}
    normal: dict[ComponentName, Scores] = {}
    for name in progress.step_through(dict.fromkeys((*choice.names, mapped)), log):
        fitted[name] = fitters.fit(name, encoded, choice.bank, seed)
        if held_out:
            normal[name] = score(fitted[name], held_out)
        else:
            normal[name] = cross_score(name, encoded, folds, choice.bank, seed)
    scales = {name: _measure_scale(scores) for name, scores in normal.items()}
    latents = LatentDistance(encoded.latents, len(encoded))
    distances = (
        _measure_distances(latents, held_out)
        if held_out
        else _cross_measure_distances(encoded, folds)
    )
    components = {name: fitted[name] for name in choice.names}
    scorer = DetectorScorer(
        components, (mapped, fitted[mapped]), scales, latents, choice.size
    ).eval()
    scores = _standardise_scores(choice.names, normal, scales)
    maps = _standardise_maps(normal[mapped], scales[mapped])
    return FittedDetector(scorer, scores, maps, distances)


def choose_map_component(names: ComponentNames, config: DetectorConfig) -> ComponentName:
    """The component of the anomaly map: a memory bank, which localises best, else `config.map`."""
    preferred = [
        *(name for name in names if name in MEMORY_BANKS),
        *([config.map] if config.map else []),
        *names,
    ]
    return preferred[0]


def _describe_calibration(
    encoded: ImageFeatures, held_out: ImageFeatures | None, config: DetectorConfig
) -> str:
    if held_out:
        return f"calibrating on {len(held_out)} images"
    folds = min(config.folds, len(encoded))
    return f"calibrating on {len(encoded)} images, in {folds} folds"


def _measure_scale(normal: Scores) -> Scale:
    return Scale(
        selection.measure_spread(normal.scores),
        None if normal.maps is None else selection.measure_spread(normal.maps),
    )


def _standardise_scores(
    names: ComponentNames,
    normal: Mapping[ComponentName, Scores],
    scales: Mapping[ComponentName, Scale],
) -> Floats:
    """The scores as the scorer computes them."""
    scores = [selection.standardise(normal[name].scores, scales[name].score) for name in names]
    return selection.average_scores(scores)


def _standardise_maps(normal: Scores, scale: Scale) -> Floats:
    """Standardise anomaly maps as the scorer does before it enlarges them."""
    assert normal.maps is not None  # the component was chosen for its map
    assert scale.map is not None
    return np.logaddexp(np.float32(0), selection.standardise(normal.maps, scale.map))


def _measure_distances(latents: LatentDistance, encoded: ImageFeatures) -> Floats:
    distances: Floats = latents(encoded.latents).numpy()
    return distances


def _cross_measure_distances(encoded: ImageFeatures, folds: npt.NDArray[np.int64]) -> Floats:
    distances = np.empty(len(encoded), np.float32)
    for fold in range(int(folds.max()) + 1):
        others, held_out = (
            encoded.take(np.flatnonzero(chosen)) for chosen in (folds != fold, folds == fold)
        )
        distances[folds == fold] = _measure_distances(
            LatentDistance(others.latents, len(others)), held_out
        )
    return distances
