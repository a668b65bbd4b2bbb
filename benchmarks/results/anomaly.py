"""The section on detectors, from the results of `benchmarks.anomaly`."""

import statistics
from typing import Any, NamedTuple

Results = dict[str, Any]


class Goal(NamedTuple):
    """A task of the table: its protocol, results by others, and our goal, in percent."""

    protocol: str
    references: str
    goal: str
    area: str  # the metric of the goal


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
    "For orientation, the mean over all of MVTec AD as reported: PatchCore (WideResNet50, ImageNet)"
    " 99.1, EfficientAD (distilled from ImageNet) 98.8, Dinomaly (DINOv2) 99.7, NSA 97.2 without"
    " weights from elsewhere."
)


def section(results: dict[str, Results]) -> str:
    """The tables of tasks and studies; empty if nothing was measured."""
    if not results:
        return ""
    heads = ["task", "measured", *BASELINES.values(), "others, as reported", "goal", "minutes"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, goal in GOALS.items():
        if runs := [*results.get(name, {}).values()]:
            lines.append(_row(_task(goal, runs)))
    heads = [
        "run",
        "AUROC",
        "score",
        "map",
        "working size",
        "calibrated on",
        "anomalous at a rate of 0.05",
    ]
    lines += [
        "",
        ELSEWHERE,
        "",
        "Selected score components, and normal test images called anomalous:",
    ]
    lines += ["", _row(heads), _row(["---"] * len(heads))]
    for name, goal in GOALS.items():
        lines += [_row(_run(run, each, goal.area)) for run, each in results.get(name, {}).items()]
    return "\n".join([*lines, *_studies(results.get("studies", {}))])


def _task(goal: Goal, runs: list[Results]) -> list[str]:
    baselines = [_mean(runs, f"{method}_{goal.area}") for method in BASELINES]
    minutes = f"{sum(run['minutes'] for run in runs):.1f}"
    measured = _measured(runs, goal.area)
    return [goal.protocol, measured, *baselines, goal.references, goal.goal, minutes]


def _studies(results: dict[str, dict[str, Results]]) -> list[str]:
    tables = {
        "few": _few,
        "splits": _splits,
        "false-positives": _false_positives,
        "choice": _choices,
    }
    measured = {name: table for name, table in tables.items() if results.get(name)}
    return [line for name, table in measured.items() for line in table(results[name])]


def _few(results: dict[str, Results]) -> list[str]:
    counts = [*next(iter(results.values()))]
    rows = [[task, *(_spread(each[count]) for count in counts)] for task, each in results.items()]
    title = "Few random photographs: mean AUROC, and the lowest of the draws:"
    return _table(title, ["task", *counts], rows)


def _splits(results: dict[str, Results]) -> list[str]:
    rows = [[task, _spread(each), str(each["draws"])] for task, each in results.items()]
    title = "Random splits of the normal photographs: mean AUROC, and the lowest of the draws:"
    return _table(title, ["task", "AUROC", "splits"], rows)


def _false_positives(results: dict[str, Results]) -> list[str]:
    rows = [
        [task, rate, f"{of['share']:.3f}", f"{of['p_value']:.2f}"]
        for task, each in results.items()
        for rate, of in each.items()
        if isinstance(of, dict)
    ]
    title = (
        "False positives over random splits, as a share of the held-out normal photographs; the"
        " p-value is the probability of at least as many under a beta-binomial law:"
    )
    return _table(title, ["task", "rate", "share", "p-value"], rows)


def _choices(results: dict[str, Results]) -> list[str]:
    heads = [
        "task",
        "rank correlation",
        "candidates differ",
        "AUROC of the chosen",
        "lost to the best in hindsight",
    ]
    rows = [
        [
            task,
            f"{each['rank_correlation']:.2f}",
            "yes" if each["candidates_differ"] else "no",
            f"{100 * each['chosen']:.2f}",
            f"{100 * each['lost']:.2f}",
        ]
        for task, each in results.items()
    ]
    return _table("Selection by synthetic anomalies, compared with labelled images:", heads, rows)


def _table(title: str, heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [_row(heads), _row(["---"] * len(heads)), *(_row(row) for row in rows)]
    return ["", title, "", *lines]


def _run(run: str, each: Results, area: str) -> list[str]:
    metrics = each["metrics"]
    rate = metrics.get("false_positive_rate_at_0.05")
    return [
        run,
        _area(metrics, area),
        " + ".join(each["score"]),
        " + ".join(each["map"]),
        "x".join(map(str, each["size"])) if "size" in each else "",
        f"{each['calibrated_on']} images",
        "" if rate is None else f"{100 * rate:.1f} %",
    ]


def _measured(runs: list[Results], area: str) -> str:
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


def _mean(runs: list[Results], name: str) -> str:
    values = [run["metrics"][name] for run in runs if name in run["metrics"]]
    return f"{100 * statistics.mean(values):.2f}" if values else "–"


def _spread(each: Results) -> str:
    return f"{100 * each['mean']:.2f}, {100 * each['least']:.2f}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
