"""The section on detectors, from the figures of `benchmarks.anomaly`."""

import statistics
from typing import Any, NamedTuple

Figures = dict[str, Any]


class Goal(NamedTuple):
    """A task of the table: its protocol, what others report, and what it is to reach, in percent."""

    protocol: str
    references: str
    goal: str
    area: str  # the metric that is held against the goal


GOALS = {
    "bottle": Goal(
        "MVTec AD bottle (256x256 files): train/good against test",
        "PatchCore, WideResNet50 pre-trained on ImageNet: 100.0",
        "100.0; pixels 98.0, AUPRO 93.0",
        "auroc_against_defects",
    ),
    "cookies": Goal(
        "cookies: train/good against test",
        "nothing trained: –",
        "100.0; pixels 97.2",
        "auroc_against_defects",
    ),
    "screw": Goal(
        "MVTec AD screw (512x512 files): train/good against test",
        "PatchCore, WideResNet50 pre-trained on ImageNet: about 98; int8 MobileNetV2: 82",
        "96.0",
        "auroc_against_defects",
    ),
    "one-class-mnist": Goal(
        "one class of MNIST against all test images",
        "trained on MNIST alone: Deep SVDD 94.8, OCGAN 97.5, ARNet 98.3",
        "98.8",
        "auroc_against_other_classes",
    ),
    "one-class-fashion-mnist": Goal(
        "one class of Fashion-MNIST against all test images",
        "trained on Fashion-MNIST alone: GeoTrans 93.5, ARNet 93.9",
        "94.3",
        "auroc_against_other_classes",
    ),
    "fashion-against-mnist": Goal(
        "all of Fashion-MNIST against MNIST",
        "likelihood of a plain VAE: 87",
        "99.5",
        "auroc_against_mnist",
    ),
}
BASELINES = {
    "pca_mean": "PCA, mean",
    "pca_peak": "PCA, peak",
    "pixel_neighbours": "patches of pixels",
}
ELSEWHERE = (
    "For orientation, the mean over all of MVTec AD as reported: PatchCore (WideResNet50, ImageNet) 99.1, EfficientAD "
    "(distilled from ImageNet) 98.8, Dinomaly (DINOv2) 99.7, NSA 97.2 with no weights from elsewhere."
)


def section(found: dict[str, Figures]) -> str:
    """The tables of tasks and studies; empty where nothing was measured."""
    if not found:
        return ""
    heads = ["task", "measured", *BASELINES.values(), "others, as reported", "goal", "minutes"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, goal in GOALS.items():
        if runs := [*found.get(name, {}).values()]:
            baselines = [_mean(runs, f"{method}_{goal.area}") for method in BASELINES]
            measured = _measured(runs, goal.area)
            minutes = f"{sum(run['minutes'] for run in runs):.1f}"
            lines.append(
                _row([goal.protocol, measured, *baselines, goal.references, goal.goal, minutes])
            )
    lines += [
        "",
        ELSEWHERE,
        "",
        "What was chosen, and how many normal test images were called anomalous:",
        "",
    ]
    heads = [
        "run",
        "AUROC",
        "score",
        "map",
        "working size",
        "calibrated on",
        "anomalous at a rate of 0.05",
    ]
    lines += [_row(heads), _row(["---"] * len(heads))]
    for name, goal in GOALS.items():
        lines += [_row(_run(run, each, goal.area)) for run, each in found.get(name, {}).items()]
    return "\n".join([*lines, *_studies(found.get("studies", {}))])


def _studies(found: dict[str, dict[str, Figures]]) -> list[str]:
    lines: list[str] = []
    if few := found.get("few"):
        counts = [*next(iter(few.values()))]
        lines += ["", "Few photographs, random ones: mean AUROC, and the least of the draws:", ""]
        lines += [_row(["task", *counts]), _row(["---"] * (1 + len(counts)))]
        lines += [
            _row([task, *(_spread(each[count]) for count in counts)]) for task, each in few.items()
        ]
    if splits := found.get("splits"):
        lines += [
            "",
            "Random splits of the normal photographs into training and test: mean AUROC, and the least:",
            "",
        ]
        lines += [_row(["task", "AUROC", "splits"]), _row(["---"] * 3)]
        lines += [_row([task, _spread(each), str(each["draws"])]) for task, each in splits.items()]
    if alarms := found.get("false-positives"):
        lines += [
            "",
            "False positives over random splits of the normal photographs, as a share of those that are",
            "",
        ]
        lines[-2] += " unseen; the p-value is that of as many under a beta-binomial law:"
        lines += [_row(["task", "rate", "share", "p-value"]), _row(["---"] * 4)]
        for task, each in alarms.items():
            rates = {rate: of for rate, of in each.items() if isinstance(of, dict)}
            lines += [
                _row([task, rate, f"{of['share']:.3f}", f"{of['p_value']:.2f}"])
                for rate, of in rates.items()
            ]
    if choices := found.get("choice"):
        lines += ["", "The choice by synthetic anomalies, held against labelled images:", ""]
        heads = [
            "task",
            "rank correlation",
            "candidates differ",
            "AUROC of the chosen",
            "lost to the best in hindsight",
        ]
        lines += [_row(heads), _row(["---"] * len(heads))]
        for task, each in choices.items():
            differ = "yes" if each["candidates_differ"] else "no"
            cells = [
                f"{each['rank_correlation']:.2f}",
                differ,
                f"{100 * each['chosen']:.2f}",
                f"{100 * each['lost']:.2f}",
            ]
            lines.append(_row([task, *cells]))
    return lines


def _run(run: str, each: Figures, area: str) -> list[str]:
    metrics = each["metrics"]
    alarms = metrics.get("false_positive_rate_at_0.05")
    return [
        run,
        _area(metrics, area),
        " + ".join(each["score"]),
        " + ".join(each["map"]),
        "x".join(map(str, each["size"])) if "size" in each else "",
        f"{each['calibrated_on']} images",
        "" if alarms is None else f"{100 * alarms:.1f} %",
    ]


def _measured(runs: list[Figures], area: str) -> str:
    text = (
        f"{_mean(runs, area)}, mean of {len(runs)}"
        if len(runs) > 1
        else _area(runs[0]["metrics"], area)
    )
    if "pixel_auroc" in runs[0]["metrics"]:
        text += f"; pixels {_mean(runs, 'pixel_auroc')}, AUPRO {_mean(runs, 'aupro')}"
    return text


def _area(metrics: dict[str, float], area: str) -> str:
    error = metrics.get(f"{area}_se")
    return f"{100 * metrics[area]:.2f}" + ("" if error is None else f" ± {100 * error:.2f}")


def _mean(runs: list[Figures], name: str) -> str:
    values = [run["metrics"][name] for run in runs if name in run["metrics"]]
    return f"{100 * statistics.mean(values):.2f}" if values else "–"


def _spread(each: Figures) -> str:
    return f"{100 * each['mean']:.2f}, {100 * each['least']:.2f}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
