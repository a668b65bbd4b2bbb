"""From normal photographs to a fitted scorer, and to the held-out scores that calibrate it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from training import progress
from training.detector import fitters, selection
from training.detector.components import MEMORY_BANKS, Component, ComponentName, Names
from training.detector.config import DetectorConfig
from training.detector.cross_fitting import Floats, Scores, cross_score, folds, score
from training.detector.scene import Scenes
from training.detector.scorer import Scale, Scorer
from training.detector.trials import Choice
from training.detector.whitening import LatentDistance
from training.progress import Log


@dataclass(frozen=True)
class Fitted:
    """A scorer, and of normal images that it was not fitted to, scores, maps and latent distances: (n, ...) each."""

    scorer: Scorer
    scores: Floats
    maps: Floats
    latent_distances: Floats


@torch.no_grad()
def fit(
    choice: Choice,
    scenes: Scenes,
    held_out: Scenes | None,
    config: DetectorConfig,
    seed: int,
    log: Log,
) -> Fitted:
    """Fit the chosen components to normal images, and score `held_out` ones; without any, by cross-fitting.

    Cross-conformal prediction (Vovk 2015, section 2.2): each image is scored by components that were fitted without its
    fold, and new images by those that were fitted to all.
    """
    mapped = map_of(choice.names, config)
    fitted: dict[ComponentName, Component] = {}
    normal: dict[ComponentName, Scores] = {}
    count = len(held_out) if held_out else len(scenes)
    log(
        f"calibrating on {count} images{'' if held_out else f', in {min(config.folds, count)} folds'}"
    )
    parts = folds(len(scenes), config.folds, seed)
    for name in progress.step_through(dict.fromkeys((*choice.names, mapped)), log):
        fitted[name] = fitters.fit(name, scenes, choice.bank, seed)
        if held_out:
            normal[name] = score(fitted[name], held_out)
        else:
            normal[name], _ = cross_score(name, scenes, parts, choice.bank, seed)
    latents = LatentDistance(scenes.latents, len(scenes))
    distances = _distances(latents, held_out) if held_out else _cross_distances(scenes, parts)
    scales = {name: _scale(each) for name, each in normal.items()}
    score_of = {name: fitted[name] for name in choice.names}
    scorer = Scorer(score_of, (mapped, fitted[mapped]), scales, latents, choice.size).eval()
    scores = [
        selection.standardised(normal[name].scores, scales[name].score) for name in choice.names
    ]
    return Fitted(
        scorer, selection.sum_of(scores), _maps(normal[mapped], scales[mapped]), distances
    )


def map_of(names: Names, config: DetectorConfig) -> ComponentName:
    """The component whose map is the anomaly map: a memory bank's, which marks defects best, else what is asked for."""
    wanted = [
        *(name for name in names if name in MEMORY_BANKS),
        *([config.map] if config.map else []),
        *names,
    ]
    return wanted[0]


def _scale(normal: Scores) -> Scale:
    return Scale(
        selection.spread(normal.scores),
        None if normal.maps is None else selection.spread(normal.maps),
    )


def _maps(normal: Scores, scale: Scale) -> Floats:
    """The anomaly maps as the scorer makes them, before they are enlarged."""
    assert normal.maps is not None  # the component was chosen for its map
    assert scale.map is not None
    return np.logaddexp(np.float32(0), selection.standardised(normal.maps, scale.map))


def _distances(latents: LatentDistance, scenes: Scenes) -> Floats:
    distances: Floats = latents(scenes.latents).numpy()
    return distances


def _cross_distances(scenes: Scenes, fold_of: npt.NDArray[np.int64]) -> Floats:
    distances = np.empty(len(scenes), np.float32)
    for fold in range(int(fold_of.max()) + 1):
        others, held_out = (
            scenes.take(np.flatnonzero(chosen)) for chosen in (fold_of != fold, fold_of == fold)
        )
        distances[fold_of == fold] = _distances(
            LatentDistance(others.latents, len(others)), held_out
        )
    return distances
