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
        "one class of MNIST against all test images, mean of 10",
        "Deep SVDD 94.8, OCGAN 97.5, ARNet 98.3",
        "98.0; stretch 98.5",
        "auroc_against_other_classes",
    ),
    "one-class-fashion-mnist": Goal(
        "one class of Fashion-MNIST against all test images, mean of 10",
        "GeoTrans 93.5, ARNet 93.9",
        "94.0; stretch 95.0",
        "auroc_against_other_classes",
    ),
    "fashion-against-mnist": Goal(
        "all of Fashion-MNIST against MNIST", "likelihood of a plain VAE 87", "99.5", "auroc_against_mnist"
    ),
}


def section(found: dict[str, dict[str, Any]]) -> str:
    """The table, and below it what each score is made of."""
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
    chosen = [
        f"| {task}, {run} | {' + '.join(each['score'])} | {' + '.join(each['map'])} |"
        for task, runs_of in found.items()
        for run, each in runs_of.items()
    ]
    return "\n".join([*lines, "", "| run | score | map |", "| --- | --- | --- |", *chosen])


def _measured(runs: list[dict[str, Any]], area: str) -> str:
    text = _mean(runs, area)
    if "pixel_auroc" in runs[0]["metrics"]:
        text += f"; pixels {_mean(runs, 'pixel_auroc')}, AUPRO {_mean(runs, 'aupro')}"
    return text


def _mean(runs: list[dict[str, Any]], name: str) -> str:
    return f"{100 * statistics.mean(run['metrics'][name] for run in runs):.2f}"


def _trained(runs: list[dict[str, Any]]) -> str:
    minutes = sum(run["minutes"] for run in runs)
    devices = " and ".join(sorted({run["device"] for run in runs}))
    return f"{minutes:.1f} min together, {devices}" if len(runs) > 1 else f"{minutes:.1f} min, {devices}"
