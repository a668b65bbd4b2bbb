"""Table, recall and advice from a detector's trials, for the person who trains it."""

from collections.abc import Mapping, Sequence

import numpy as np

from bundle.conformal import RATES, can_tell
from bundle.tensors import Images
from training.detector import selection
from training.detector.components import BASELINES
from training.detector.synthetic_anomalies import KINDS
from training.detector.trials import Trials
from training.evaluation.detector_results import baseline_metric

SMALL = 0.1  # extent of an anomaly, in parts of the shorter side
LITTLE = 0.5  # recall below which there is something to advise
ALIGNED_GAIN = 0.02  # AUROC by which neighbours lead Gaussians by position where positions vary
LIGHT = 0.1  # relative standard deviation of the photographs' mean brightness


def synthetic(trials: Trials) -> dict[str, dict[str, float]]:
    """AUROC on synthetic anomalies of each kind, by candidate, and of the chosen one as `chosen`."""
    found = {
        _label(names): selection.by_kind(outcome, trials.kinds)
        for names, outcome in trials.outcomes.items()
    }
    chosen = selection.by_kind(trials.chosen, trials.kinds)
    return {
        name: {kind: round(area, 4) for kind, area in areas.items()}
        for name, areas in (found | {"chosen": chosen}).items()
    }


def recall(trials: Trials) -> dict[str, dict[str, float]]:
    """Share of each kind that is found, by each false positive rate that the trials can tell."""
    found = {str(rate): selection.recall(trials.chosen, trials.kinds, rate) for rate in RATES}
    return {
        rate: {kind: round(share, 4) for kind, share in of.items()}
        for rate, of in found.items()
        if of
    }


def weakness(trials: Trials, seed: int) -> str | None:
    """Why the detector is too weak to be published; None where it is not."""
    bound = selection.weak_bound(trials.chosen, trials.kinds, trials.anomalies.extents, seed)
    if bound > selection.CHANCE:
        return None
    return (
        f"of larger synthetic anomalies, the second hardest kind has an AUROC of {bound:.2f} at its lower 95 % bound, "
        f"not above {selection.CHANCE}, which is chance"
    )


def calibration_line(count: int) -> str:
    """What so many normal images calibrate, as a person would say it."""
    finest = count + 1
    text = f"{count:,} good photographs: at the finest, one false alarm in {finest:,} good parts"
    wanted = next((each for each in (100, 1000) if each > finest), None)
    return f"{text}; {wanted - finest} more allow one in {wanted:,}" if wanted else text


def advice(trials: Trials, images: Images, calibrated: int, larger: bool) -> tuple[str, ...]:
    """Sentences that say what would make the detector better; `larger` says whether a larger size is left to try."""
    found = (
        _on_size(trials, larger),
        _on_position(trials),
        _on_light(images),
        _on_count(calibrated),
    )
    return tuple(sentence for sentence in found if sentence)


def _on_size(trials: Trials, larger: bool) -> str | None:
    rate = next(
        (rate for rate in RATES[::-1] if rate <= 0.1 and can_tell(len(trials.chosen.normal), rate)),
        None,
    )
    small = trials.anomalies.extents < SMALL
    level = None if rate is None else selection.threshold(trials.chosen.normal, rate)
    if level is None or not small.any():
        return None
    share = float((trials.chosen.anomalous[small] >= level).mean())
    if share >= LITTLE:
        return None
    remedy = "a larger detector.sizes or closer photographs" if larger else "closer photographs"
    return f"{share:.0%} of anomalies below a tenth of the side are found at a rate of {rate}: try {remedy}."


def _on_position(trials: Trials) -> str | None:
    areas = {
        names: selection.mean_auroc(outcome, trials.kinds)
        for names, outcome in trials.outcomes.items()
    }
    if areas.get(("neighbours",), 0) - areas.get(("gaussians",), 1) <= ALIGNED_GAIN:
        return None
    return "The position of the parts varies: fix it, and fainter anomalies are found."


def _on_light(images: Images) -> str | None:
    brightness = images.reshape(len(images), -1).mean(axis=1)
    spread = float(brightness.std() / max(float(brightness.mean()), 1.0))
    return (
        f"The brightness varies by {spread:.0%}: keep the light constant."
        if spread > LIGHT
        else None
    )


def _on_count(calibrated: int) -> str | None:
    missing = 99 - calibrated
    return (
        f"Take {missing} more photographs for verdicts at a rate of 0.01." if missing > 0 else None
    )


def table(trials: Trials, labelled: Mapping[str, float]) -> str:
    """AUROC by candidate and kind of synthetic anomaly, and on labelled images where there are any."""
    kinds = [*KINDS, "mean", *(["labelled"] if labelled else [])]
    rows = []
    for name, areas in synthetic(trials).items():
        values = [*areas.values(), float(np.mean(list(areas.values())))]
        texts = [f"{value:.3f}" for value in values]
        if labelled:
            texts.append(f"{labelled[name]:.3f}" if name in labelled else "")
        rows.append((name + (" (baseline)" if name in BASELINES else ""), texts))
    width = max(len(name) for name, _ in rows)
    head = f"{'AUROC, synthetic anomalies':{width}}  " + "  ".join(kinds)
    return "\n".join([head, *(_row(name, texts, kinds, width) for name, texts in rows)])


def labelled(metrics: Mapping[str, float]) -> dict[str, float]:
    """AUROC on labelled test images of the chosen candidate and of the baselines, by their names in the table."""
    own = next((name for name in metrics if name.startswith("auroc_against_")), None)
    if own is None:
        return {}
    baselines = {name: metrics.get(baseline_metric(name, own)) for name in BASELINES}
    return {"chosen": metrics[own]} | {
        name: area for name, area in baselines.items() if area is not None
    }


def recall_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Recall by false positive rate and kind of synthetic anomaly."""
    kinds = [*KINDS]
    head = f"{'recall at a false positive rate of':34}  " + "  ".join(kinds)
    rows = [
        _row(rate, [f"{of[kind]:.2f}" for kind in kinds], kinds, 34) for rate, of in found.items()
    ]
    return "\n".join([head, *rows])


def _row(name: str, texts: Sequence[str], heads: Sequence[str], width: int) -> str:
    return f"{name:{width}}  " + "  ".join(
        f"{text:>{len(head)}}" for text, head in zip(texts, heads, strict=True)
    )


def _label(names: Sequence[str]) -> str:
    return " + ".join(names)
