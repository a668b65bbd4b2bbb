"""Studies of detectors of photographs: choices, few photographs, splits, false positives."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import betabinom, spearmanr

from bundle.conformal import RATES, ConformalScores, allows_rate
from bundle.manifest import Calibration, ErrorMapScale
from training.data.image_set import DetectorData, ImageSet, Photographs
from training.detector import fitters, selection
from training.detector.cross_fitting import score
from training.detector.fit import fit
from training.detector.scene import Scenes
from training.detector.scorer import Scorer
from training.detector.trials import Choice, Trials
from training.metrics.detection import auroc
from training.pipeline import load_data, train_detector
from training.pipeline.train_detector import Encoders
from training.progress import silence
from training.recipe import DetectorRecipe

FEW_IMAGES = (5, 10, 20)
DIFFER = (
    0.02  # AUROC by which the candidates of a task have to differ, for their order to mean anything
)

Study = Callable[[DetectorRecipe, Path, int], dict[str, Any]]


def few(recipe: DetectorRecipe, home: Path, draws: int) -> dict[str, Any]:
    """AUROC by image of detectors of a few random training photographs: the mean, and the least."""
    data, found = load_data.load_detector(recipe, home, silence), {}
    with train_detector.open_encoders(recipe) as encoders:
        for count in FEW_IMAGES:
            areas = []
            for draw in range(draws):
                order = np.random.default_rng(draw).permutation(len(data.training))[:count]
                areas.append(
                    _area(
                        recipe, _with(data, data.training.take(np.sort(order)), data.test), encoders
                    )
                )
            found[str(count)] = _summary(areas)
    return found


def splits(recipe: DetectorRecipe, home: Path, draws: int) -> dict[str, Any]:
    """AUROC by image where the normal photographs are split otherwise between training and test."""
    data = load_data.load_detector(recipe, home, silence)
    with train_detector.open_encoders(recipe) as encoders:
        return _summary([_area(recipe, _resplit(data, draw), encoders) for draw in range(draws)])


def false_positives(recipe: DetectorRecipe, home: Path, draws: int) -> dict[str, Any]:
    """Shares of unseen normal photographs that are called anomalous, over random splits of the normal ones.

    Under exchangeability the number of false positives in one split is beta-binomial; `p_value` is that of as many in
    all splits together, as if these were independent. The components are those that the first split chooses.
    """
    data = load_data.load_detector(recipe, home, silence)
    counts: dict[float, int] = {}
    nulls: dict[float, npt.NDArray[np.float64]] = {}
    total = 0
    with train_detector.open_encoders(recipe) as encoders:
        trials = _trials(recipe, data, encoders)
        for draw in range(draws):
            split = _resplit(data, draw)
            fitted = train_detector.fit_chosen(recipe, split, trials, encoders, silence)
            scores = _scores(fitted.scorer, split.test, recipe, trials.choice, encoders)
            p_values = _conformal(fitted.scores).p_values(scores)
            n, m = len(fitted.scores), len(scores)
            total += m
            for rate in (
                rate for rate in RATES if allows_rate(n, rate) and rate in (0.01, 0.05, 0.1)
            ):
                allowed = int(np.floor(rate * (n + 1) + 1e-9))
                null = betabinom(m, allowed, n + 1 - allowed).pmf(np.arange(m + 1))
                nulls[rate] = np.convolve(nulls.get(rate, np.ones(1)), null)
                counts[rate] = counts.get(rate, 0) + int((p_values <= rate).sum())
    return {
        str(rate): {
            "share": counts[rate] / total,
            "p_value": float(nulls[rate][counts[rate] :].sum()),
        }
        for rate in counts
    } | {"photographs": total}


def choice(recipe: DetectorRecipe, home: Path, _: int) -> dict[str, Any]:
    """Order of the candidates by trials and by labelled images: rank correlation, and what the choice lost."""
    data = load_data.load_detector(recipe, home, silence)
    assert data.anomalous is not None  # every task has labelled images
    with train_detector.open_encoders(recipe) as encoders:
        trials = _trials(recipe, data, encoders)
        size, bank = data.sizes[0], recipe.detector.banks[0]
        training, test, anomalous = (
            _scenes(images, recipe, size, encoders)
            for images in (data.training, data.test, data.anomalous.images)
        )
        found = {}
        for name in {name for of in trials.outcomes for name in of}:
            component = fitters.fit(name, training, bank, recipe.seed)
            found[name] = score(component, test), score(component, anomalous)
        outcomes = {of: selection.combine_components(of, found) for of in trials.outcomes}
        labelled = {
            of: auroc(outcome.normal, outcome.anomalous) for of, outcome in outcomes.items()
        }
        synthetic = {
            of: selection.mean_auroc(outcome, trials.kinds)
            for of, outcome in trials.outcomes.items()
        }
        chosen = _area(recipe, data, encoders, trials)
    order = list(labelled)
    correlation = spearmanr(
        [synthetic[of] for of in order], [labelled[of] for of in order]
    ).statistic
    return {
        "synthetic": {" + ".join(of): round(synthetic[of], 4) for of in order},
        "labelled": {" + ".join(of): round(labelled[of], 4) for of in order},
        "rank_correlation": float(correlation),
        "candidates_differ": max(labelled.values()) - min(labelled.values()) > DIFFER,
        "chosen": chosen,
        "lost": max(0.0, max(labelled.values()) - chosen),
    }


STUDIES: Mapping[str, Study] = {
    "few": few,
    "splits": splits,
    "false-positives": false_positives,
    "choice": choice,
}


def _trials(recipe: DetectorRecipe, data: DetectorData, encoders: Encoders) -> Trials:
    return train_detector.select(
        recipe, data, train_detector.sample_normal(recipe, data), encoders, True, silence
    )[0]


def _area(
    recipe: DetectorRecipe, data: DetectorData, encoders: Encoders, trials: Trials | None = None
) -> float:
    """AUROC by image of a detector that is chosen, fitted and calibrated as one that is published."""
    assert data.anomalous is not None  # every task has labelled images
    trials = trials or _trials(recipe, data, encoders)
    training = _scenes(data.training, recipe, trials.choice.size, encoders)
    # Two folds are enough for the scales of a sum, on which the order of scores hardly depends.
    config = recipe.detector.model_copy(
        update={"folds": 2 if len(trials.choice.names) == 1 else recipe.detector.folds}
    )
    scorer = fit(trials.choice, training, None, config, recipe.seed, silence).scorer
    normal, anomalous = (
        _scores(scorer, images, recipe, trials.choice, encoders)
        for images in (data.test, data.anomalous.images)
    )
    return auroc(normal, anomalous)


@torch.no_grad()
def _scores(
    scorer: Scorer, images: ImageSet, recipe: DetectorRecipe, chosen: Choice, encoders: Encoders
) -> npt.NDArray[np.float32]:
    scenes = _scenes(images, recipe, chosen.size, encoders)
    found = [scorer(*(scene[name] for name in scorer.inputs))[0] for scene in scenes.batches()]
    return torch.cat(found).numpy()


def _scenes(
    images: ImageSet, recipe: DetectorRecipe, size: tuple[int, int], encoders: Encoders
) -> Scenes:
    return encoders.open_reader(size).read(
        images.read(recipe.spec(size), silence), keep_images=True
    )


def _resplit(data: DetectorData, seed: int) -> DetectorData:
    """Other normal photographs, at random, to train and to test with: as many as before."""
    assert isinstance(data.training, Photographs)
    assert isinstance(data.test, Photographs)
    every = Photographs(data.training.paths + data.test.paths)
    order = np.random.default_rng(seed).permutation(len(every))
    training, test = np.split(order, [len(data.training)])
    return _with(data, every.take(np.sort(training)), every.take(np.sort(test)))


def _with(data: DetectorData, training: ImageSet, test: ImageSet) -> DetectorData:
    return DetectorData(training, data.calibration, test, data.anomalous, data.sha256, data.sizes)


def _conformal(scores: npt.NDArray[np.float32]) -> ConformalScores:
    ascending = tuple(float(score) for score in np.sort(scores))
    return ConformalScores(
        Calibration(method="", scores=ascending, error_map=ErrorMapScale(low=0, high=1))
    )


def _summary(areas: list[float]) -> dict[str, Any]:
    return {
        "mean": float(np.mean(areas)),
        "least": min(areas),
        "deviation": float(np.std(areas)),
        "draws": len(areas),
    }
