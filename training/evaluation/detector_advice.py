"""Tables, recall and advice from the trials of a detector, for the person who trains it."""

from collections.abc import Mapping, Sequence

import numpy as np

from bundle.conformal import RATES, allows_rate
from bundle.tensors import Images
from training.detector import selection
from training.detector.components import BASELINES
from training.detector.synthetic_anomalies import KINDS
from training.detector.trials import Trials
from training.evaluation.detector_results import name_baseline_metric

MAX_SMALL_EXTENT = 0.1  # of an anomaly, as part of the shorter side
MIN_SMALL_RECALL = 0.5  # of small anomalies, below which closer photographs are advised
MIN_POSITION_GAIN = 0.02  # AUROC by which `neighbours` leads `gaussians` if positions vary
MAX_BRIGHTNESS_DEVIATION = 0.1  # standard deviation of the mean brightness, relative to its mean
MIN_ADVISED_IMAGES = 99  # allow verdicts at a false positive rate of 0.01


def tabulate_synthetic(trials: Trials) -> dict[str, dict[str, float]]:
    """AUROC by candidate and kind of synthetic anomaly; the published detector is `chosen`."""
    tried = {
        _join_names(names): selection.auroc_by_kind(outcome, trials.kinds)
        for names, outcome in trials.outcomes.items()
    }
    chosen = selection.auroc_by_kind(trials.chosen, trials.kinds)
    return {
        name: {kind: round(area, 4) for kind, area in areas.items()}
        for name, areas in (tried | {"chosen": chosen}).items()
    }


def tabulate_recall(trials: Trials) -> dict[str, dict[str, float]]:
    """Recall by false positive rate and kind, for the rates that the trials allow."""
    recalls = {str(rate): selection.recall(trials.chosen, trials.kinds, rate) for rate in RATES}
    return {
        rate: {kind: round(share, 4) for kind, share in by_kind.items()}
        for rate, by_kind in recalls.items()
        if by_kind
    }


def explain_weakness(trials: Trials, seed: int) -> str | None:
    """The reason why a detector is too weak to publish; None if it is not."""
    bound = selection.weak_bound(trials.chosen, trials.kinds, trials.anomalies.extents, seed)
    if bound > selection.RANDOM_AUROC:
        return None
    return (
        f"of larger synthetic anomalies, the second hardest kind has an AUROC of {bound:.2f}"
        f" at its lower 95 % bound, not above {selection.RANDOM_AUROC}, that of random scores"
    )


def format_calibration(count: int) -> str:
    """A sentence on the false positive rates that a number of calibration images allows."""
    current = count + 1
    text = f"{count:,} normal images: the minimum false positive rate is 1 in {current:,}"
    next_goal = next((goal for goal in (100, 1000) if goal > current), None)
    return f"{text}; {next_goal - current} more allow 1 in {next_goal:,}" if next_goal else text


def give_advice(trials: Trials, images: Images, calibrated: int, larger: bool) -> tuple[str, ...]:
    """Sentences of advice; `larger` is true if a larger working size is left to try."""
    sentences = (
        _advise_on_size(trials, larger),
        _advise_on_position(trials),
        _advise_on_light(images),
        _advise_on_count(calibrated),
    )
    return tuple(sentence for sentence in sentences if sentence)


def _advise_on_size(trials: Trials, larger: bool) -> str | None:
    rate = next(
        (
            rate
            for rate in RATES[::-1]
            if rate <= 0.1 and allows_rate(len(trials.chosen.normal), rate)
        ),
        None,
    )
    small = trials.anomalies.extents < MAX_SMALL_EXTENT
    level = None if rate is None else selection.threshold(trials.chosen.normal, rate)
    if level is None or not small.any():
        return None
    share = float((trials.chosen.anomalous[small] >= level).mean())
    if share >= MIN_SMALL_RECALL:
        return None
    remedy = "a larger detector.sizes or closer photographs" if larger else "closer photographs"
    return (
        f"{share:.0%} of anomalies below a tenth of the side are found at a rate of {rate}:"
        f" try {remedy}."
    )


def _advise_on_position(trials: Trials) -> str | None:
    areas = {
        names: selection.mean_auroc(outcome, trials.kinds)
        for names, outcome in trials.outcomes.items()
    }
    if areas.get(("neighbours",), 0) - areas.get(("gaussians",), 1) <= MIN_POSITION_GAIN:
        return None
    return "The position of the parts varies: fix it, and fainter anomalies are found."


def _advise_on_light(images: Images) -> str | None:
    brightness = images.reshape(len(images), -1).mean(axis=1)
    spread = float(brightness.std() / max(float(brightness.mean()), 1.0))
    return (
        f"The brightness varies by {spread:.0%}: keep the light constant."
        if spread > MAX_BRIGHTNESS_DEVIATION
        else None
    )


def _advise_on_count(calibrated: int) -> str | None:
    missing = MIN_ADVISED_IMAGES - calibrated
    return (
        f"Take {missing} more photographs for verdicts at a rate of 0.01." if missing > 0 else None
    )


def format_table(trials: Trials, labelled: Mapping[str, float]) -> str:
    """A table of AUROC by candidate and kind of anomaly, and on labelled images if any."""
    kinds = [*KINDS, "mean", *(["labelled"] if labelled else [])]
    rows = []
    for name, areas in tabulate_synthetic(trials).items():
        values = [*areas.values(), float(np.mean(list(areas.values())))]
        texts = [f"{value:.3f}" for value in values]
        if labelled:
            texts.append(f"{labelled[name]:.3f}" if name in labelled else "")
        rows.append((name + (" (baseline)" if name in BASELINES else ""), texts))
    width = max(len(name) for name, _ in rows)
    head = f"{'AUROC, synthetic anomalies':{width}}  " + "  ".join(kinds)
    return "\n".join([head, *(_format_row(name, texts, kinds, width) for name, texts in rows)])


def select_labelled(metrics: Mapping[str, float]) -> dict[str, float]:
    """AUROC on labelled test images, by the names of detector and baselines in the table."""
    own = next((name for name in metrics if name.startswith("auroc_against_")), None)
    if own is None:
        return {}
    baselines = {name: metrics.get(name_baseline_metric(name, own)) for name in BASELINES}
    return {"chosen": metrics[own]} | {
        name: area for name, area in baselines.items() if area is not None
    }


def format_recall(recalls: Mapping[str, Mapping[str, float]]) -> str:
    """A table of recall by false positive rate and kind of synthetic anomaly."""
    kinds = [*KINDS]
    head = f"{'recall at a false positive rate of':34}  " + "  ".join(kinds)
    rows = [
        _format_row(rate, [f"{by_kind[kind]:.2f}" for kind in kinds], kinds, 34)
        for rate, by_kind in recalls.items()
    ]
    return "\n".join([head, *rows])


def _format_row(name: str, texts: Sequence[str], heads: Sequence[str], width: int) -> str:
    return f"{name:{width}}  " + "  ".join(
        f"{text:>{len(head)}}" for text, head in zip(texts, heads, strict=True)
    )


def _join_names(names: Sequence[str]) -> str:
    return " + ".join(names)
