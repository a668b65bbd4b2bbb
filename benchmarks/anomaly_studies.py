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
from training.detector.image_features import ImageFeatures
from training.detector.scorer import DetectorScorer
from training.detector.trials import Choice, Trials
from training.metrics.detection import auroc
from training.pipeline import load_data, train_detector
from training.pipeline.train_detector import Encoders
from training.progress import silence
from training.recipe import DetectorRecipe

FEW_IMAGES = (5, 10, 20)
STUDIED_RATES = [rate for rate in RATES if rate in (0.01, 0.05, 0.1)]
# AUROC between the best and the worst candidate; below it, their order is random.
MIN_AUROC_DIFFERENCE = 0.02

Study = Callable[[DetectorRecipe, Path, int], dict[str, Any]]


def few(recipe: DetectorRecipe, home: Path, draws: int) -> dict[str, Any]:
    """AUROC by image of detectors of a few random training photographs: the mean and the lowest."""
    data, results = load_data.load_detector(recipe, home, silence), {}
    with train_detector.open_encoders(recipe) as encoders:
        for count in FEW_IMAGES:
            areas = []
            for draw in range(draws):
                order = np.random.default_rng(draw).permutation(len(data.training))[:count]
                training = data.training.take(np.sort(order))
                areas.append(_measure_area(recipe, _replace(data, training, data.test), encoders))
            results[str(count)] = _summarise(areas)
    return results


def splits(recipe: DetectorRecipe, home: Path, draws: int) -> dict[str, Any]:
    """AUROC by image over random splits of the normal photographs into training and test."""
    data = load_data.load_detector(recipe, home, silence)
    with train_detector.open_encoders(recipe) as encoders:
        return _summarise(
            [_measure_area(recipe, _resplit(data, draw), encoders) for draw in range(draws)]
        )


def false_positives(recipe: DetectorRecipe, home: Path, draws: int) -> dict[str, Any]:
    """False positive rates on held-out photographs, over random splits of the normal ones.

    Under exchangeability, the number of false positives in one split is beta-binomial. `p_value` is
    the probability of as many in all splits together, if splits were independent. The components
    are selected on the first split.
    """
    data = load_data.load_detector(recipe, home, silence)
    counts: dict[float, int] = {}
    nulls: dict[float, npt.NDArray[np.float64]] = {}
    total = 0
    with train_detector.open_encoders(recipe) as encoders:
        trials = _run_trials(recipe, data, encoders)
        for draw in range(draws):
            split = _resplit(data, draw)
            fitted = train_detector.fit_chosen(recipe, split, trials, encoders, silence)
            scores = _score(fitted.scorer, split.test, recipe, trials.choice, encoders)
            p_values = _build_conformal(fitted.scores).p_values(scores)
            n, m = len(fitted.scores), len(scores)
            total += m
            for rate in (rate for rate in STUDIED_RATES if allows_rate(n, rate)):
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
    """Order of the candidates by trials and by labelled images.

    The results are their rank correlation, and the AUROC that the choice lost.
    """
    data = load_data.load_detector(recipe, home, silence)
    assert data.anomalous is not None  # every task has labelled images
    with train_detector.open_encoders(recipe) as encoders:
        trials = _run_trials(recipe, data, encoders)
        size, bank = data.sizes[0], recipe.detector.banks[0]
        training, test, anomalous = (
            _encode(images, recipe, size, encoders)
            for images in (data.training, data.test, data.anomalous.images)
        )
        scores = {}
        for name in {name for of in trials.outcomes for name in of}:
            component = fitters.fit(name, training, bank, recipe.seed)
            scores[name] = score(component, test), score(component, anomalous)
        outcomes = {of: selection.combine_components(of, scores) for of in trials.outcomes}
        labelled = {
            of: auroc(outcome.normal, outcome.anomalous) for of, outcome in outcomes.items()
        }
        synthetic = {
            of: selection.mean_auroc(outcome, trials.kinds)
            for of, outcome in trials.outcomes.items()
        }
        chosen = _measure_area(recipe, data, encoders, trials)
    order = list(labelled)
    correlation = spearmanr(
        [synthetic[of] for of in order], [labelled[of] for of in order]
    ).statistic
    return {
        "synthetic": {" + ".join(of): round(synthetic[of], 4) for of in order},
        "labelled": {" + ".join(of): round(labelled[of], 4) for of in order},
        "rank_correlation": float(correlation),
        "candidates_differ": max(labelled.values()) - min(labelled.values()) > MIN_AUROC_DIFFERENCE,
        "chosen": chosen,
        "lost": max(0.0, max(labelled.values()) - chosen),
    }


STUDIES: Mapping[str, Study] = {
    "few": few,
    "splits": splits,
    "false-positives": false_positives,
    "choice": choice,
}


def _run_trials(recipe: DetectorRecipe, data: DetectorData, encoders: Encoders) -> Trials:
    return train_detector.select(
        recipe, data, train_detector.sample_normal(recipe, data), encoders, True, silence
    )[0]


def _measure_area(
    recipe: DetectorRecipe, data: DetectorData, encoders: Encoders, trials: Trials | None = None
) -> float:
    """AUROC by image of a detector, made as a published detector is."""
    assert data.anomalous is not None  # every task has labelled images
    trials = trials or _run_trials(recipe, data, encoders)
    training = _encode(data.training, recipe, trials.choice.size, encoders)
    # Two folds are enough for the scales of a sum, on which the order of scores hardly depends.
    config = recipe.detector.model_copy(
        update={"folds": 2 if len(trials.choice.names) == 1 else recipe.detector.folds}
    )
    scorer = fit(trials.choice, training, None, config, recipe.seed, silence).scorer
    normal, anomalous = (
        _score(scorer, images, recipe, trials.choice, encoders)
        for images in (data.test, data.anomalous.images)
    )
    return auroc(normal, anomalous)


@torch.no_grad()
def _score(
    scorer: DetectorScorer,
    images: ImageSet,
    recipe: DetectorRecipe,
    chosen: Choice,
    encoders: Encoders,
) -> npt.NDArray[np.float32]:
    encoded = _encode(images, recipe, chosen.size, encoders)
    scores = [scorer(*(batch[name] for name in scorer.inputs))[0] for batch in encoded.batches()]
    return torch.cat(scores).numpy()


def _encode(
    images: ImageSet, recipe: DetectorRecipe, size: tuple[int, int], encoders: Encoders
) -> ImageFeatures:
    return encoders.open_encoder(size).encode(
        images.read(recipe.spec(size), silence), keep_images=True
    )


def _resplit(data: DetectorData, seed: int) -> DetectorData:
    """The data with a random split of the normal photographs, of the same sizes."""
    assert isinstance(data.training, Photographs)
    assert isinstance(data.test, Photographs)
    every = Photographs(data.training.paths + data.test.paths)
    order = np.random.default_rng(seed).permutation(len(every))
    training, test = np.split(order, [len(data.training)])
    return _replace(data, every.take(np.sort(training)), every.take(np.sort(test)))


def _replace(data: DetectorData, training: ImageSet, test: ImageSet) -> DetectorData:
    return DetectorData(training, data.calibration, test, data.anomalous, data.sha256, data.sizes)


def _build_conformal(scores: npt.NDArray[np.float32]) -> ConformalScores:
    ascending = tuple(float(score) for score in np.sort(scores))
    return ConformalScores(
        Calibration(method="", scores=ascending, error_map=ErrorMapScale(low=0, high=1))
    )


def _summarise(areas: list[float]) -> dict[str, Any]:
    return {
        "mean": float(np.mean(areas)),
        "least": min(areas),
        "deviation": float(np.std(areas)),
        "draws": len(areas),
    }
