"""The section on detectors, from the figures of `benchmarks.anomaly`."""

import statistics
from typing import Any, NamedTuple


class Goal(NamedTuple):
    """A task of the table: its protocol, what others reach, and what it is to reach, in percent."""

    protocol: str
    references: str
    goal: str
    area: str  # the figure that is held against the goal


GOALS = {
    "bottle": Goal(
        "MVTec AD bottle at 256x256: train/good against test", "–", "99.0; pixels 96.0", "auroc_against_defects"
    ),
    "cookies": Goal("cookies at 256x192: train/good against test", "–", "99.5", "auroc_against_defects"),
    "one-class-mnist": Goal(
        "one class of MNIST against all test images",
        "Deep SVDD 94.8, OCGAN 97.5, ARNet 98.3",
        "98.0; stretch 98.5",
        "auroc_against_other_classes",
    ),
    "one-class-fashion-mnist": Goal(
        "one class of Fashion-MNIST against all test images",
        "GeoTrans 93.5, ARNet 93.9",
        "94.0; stretch 95.0",
        "auroc_against_other_classes",
    ),
    "fashion-against-mnist": Goal(
        "all of Fashion-MNIST against MNIST", "likelihood of a plain VAE 87", "99.5", "auroc_against_mnist"
    ),
}


WHAT_WAS_CHOSEN = (
    "What the scores and the maps were made of, and how many normal test images were called strange at a rate of 0.05:"
)
PICTURES = """
![Photographs of cookies, restored, with heatmaps beside masks](../models/cookies/1/report/heatmaps.png)

![Strange cookies found at each rate of false alarms](../models/cookies/1/report/roc.png)

![Scores of whole and cracked cookies with thresholds](../models/cookies/1/report/scores.png)"""


def section(found: dict[str, dict[str, Any]]) -> str:
    """The table, and below it what each score is made of; empty where nothing was measured."""
    if not found:
        return ""
    lines = [
        "| task | measured | PCA | 5 nearest neighbours | others, as reported | goal | trained |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, goal in GOALS.items():
        if runs := [*found.get(name, {}).values()]:
            baselines = [_mean(runs, f"{method}_{goal.area}") for method in ("pca", "nearest_neighbours")]
            lines.append(
                f"| {goal.protocol} | {_measured(runs, goal.area)} | {baselines[0]} | {baselines[1]} "
                f"| {goal.references} | {goal.goal} | {_trained(runs)} |"
            )
    lines += ["", WHAT_WAS_CHOSEN, "", "| run | AUROC | score | map | calibrated on | called strange at 0.05 |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, goal in GOALS.items():
        for run, each in found.get(name, {}).items():
            area, alarms = each["metrics"][goal.area], each["metrics"]["false_positive_rate_at_0.05"]
            lines.append(
                f"| {run} | {100 * area:.2f} | {' + '.join(each['score'])} | {' + '.join(each['map'])} "
                f"| {each['calibrated_on']} images | {100 * alarms:.1f} % |"
            )
    return "\n".join([*lines, *([PICTURES] if "cookies" in found else [])])


def _measured(runs: list[dict[str, Any]], area: str) -> str:
    text = _mean(runs, area)
    if len(runs) > 1:
        text += f", mean of {len(runs)}"
    if "pixel_auroc" in runs[0]["metrics"]:
        text += f"; pixels {_mean(runs, 'pixel_auroc')}, AUPRO {_mean(runs, 'aupro')}"
    return text


def _mean(runs: list[dict[str, Any]], name: str) -> str:
    return f"{100 * statistics.mean(run['metrics'][name] for run in runs):.2f}"


def _trained(runs: list[dict[str, Any]]) -> str:
    minutes = sum(run["minutes"] for run in runs)
    devices = " and ".join(sorted({run["device"] for run in runs}))
    return f"{minutes:.1f} min together, {devices}" if len(runs) > 1 else f"{minutes:.1f} min, {devices}"
