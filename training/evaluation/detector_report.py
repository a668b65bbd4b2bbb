"""The report of a detector: tables of its trials, and pictures of its heatmaps and scores."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from bundle.conformal import RATES, ConformalScores, allows_rate
from bundle.manifest import Calibration, Selection
from bundle.tensors import Floats
from training.data.image_set import ImageSet
from training.detector import selection
from training.detector.components import BASELINES
from training.detector.synthetic_anomalies import KINDS
from training.detector.trials import Trials
from training.evaluation import detector_advice, page
from training.evaluation import detector_examples as examples
from training.evaluation import detector_plots as plots
from training.evaluation.detector_examples import Examples
from training.evaluation.detector_plots import Group
from training.evaluation.detector_results import DetectorResults
from training.evaluation.page import Picture, Section, Table, Text
from training.export.published import PublishedBundle

HEATMAPS_BYTES, PLOT_BYTES = 700_000, 250_000  # maximum size of a picture


def write(
    model: PublishedBundle, results: DetectorResults, directory: Path, tried: ImageSet | None = None
) -> Path:
    """Draw the report of a detector; returns the path of the page.

    `tried` are the normal images of the trials. With them, synthetic anomalies are framed.
    """
    shown = Examples(results, tried)
    sections = chain(
        _tabulate_trials(model, results.calibration),
        [_draw_heatmaps(shown), _draw_scores(results)],
        _draw_roc(model, results),
        _draw_missed(shown),
        [page.list_metrics(model)] if model.manifest.metrics else [],
    )
    return page.write_page(model, sections, directory)


def write_calibration(model: PublishedBundle, normal: ImageSet, directory: Path) -> Path:
    """Draw the report of a calibration on these images; returns the path of the page."""
    spec, calibrated = model.manifest.input, model.require_calibration()
    rows = list(examples.draw_calibration_rows(model.graphs, calibrated, normal, spec))
    caption = (
        f"The {len(rows)} calibration images with the highest scores. If one is anomalous, "
        "take it out and calibrate again."
    )
    figure = plots.draw_overlay_table(["image", "anomaly heatmap"], rows)
    groups = [Group("calibration images", np.array(calibrated.scores), plots.BLACK)]
    sections = (
        Text("Calibration", [detector_advice.format_calibration(len(calibrated.scores))]),
        Picture("heatmaps", "Heatmaps", caption, figure, HEATMAPS_BYTES),
        _draw_histograms(groups, calibrated, ""),
        page.list_metrics(model),
    )
    return page.write_page(model, sections, directory)


def _tabulate_trials(model: PublishedBundle, calibrated: Calibration) -> Iterator[Section]:
    """Tables of the trials, and advice from them and from the calibration."""
    chosen = model.manifest.selection
    if chosen and chosen.synthetic:
        yield _tabulate_candidates(chosen, detector_advice.select_labelled(model.manifest.metrics))
        yield Table(
            "Sizes and memory banks that were tried",
            ("", "mean AUROC on synthetic anomalies"),
            [(name, f"{area:.3f}") for name, area in chosen.compared.items()],
        )
        yield Table(
            "Recall: share of synthetic anomalies found",
            ("false positive rate", *KINDS),
            [
                (rate, *(f"{by_kind[kind]:.2f}" for kind in KINDS))
                for rate, by_kind in chosen.recall.items()
            ],
        )
    sentences = [
        detector_advice.format_calibration(len(calibrated.scores)) + ".",
        *(chosen.advice if chosen else ()),
    ]
    yield Text("What would make it better", sentences)


def _tabulate_candidates(chosen: Selection, labelled: Mapping[str, float]) -> Table:
    """A table of AUROC by candidate and kind of anomaly, and on labelled images if any."""
    rows = []
    for name, areas in chosen.synthetic.items():
        values = [f"{area:.3f}" for area in (*areas.values(), np.mean([*areas.values()]))]
        if labelled:
            values.append(f"{labelled[name]:.3f}" if name in labelled else "")
        rows.append((_format_title(name, chosen), *values))
    return Table(
        "Trials: AUROC by candidate and kind of synthetic anomaly",
        ("candidate", *KINDS, "mean", *(["labelled images"] if labelled else [])),
        sorted(rows, key=lambda row: not row[0].startswith("chosen")),
        "Synthetic anomalies are generated in held-out normal images. 1 is perfect, 0.5 is random. "
        "A baseline uses pixels and no backbone; a detector should be better. Candidates are "
        "compared at the first working size. The chosen candidate is measured at its own size.",
    )


def _format_title(name: str, chosen: Selection) -> str:
    if name == "chosen":
        return f"chosen: {' + '.join(chosen.score)}"
    return f"{name} (baseline)" if name in BASELINES else name


def _draw_heatmaps(shown: Examples) -> Picture:
    data = shown.results.data
    rows = list(shown.draw_rows())
    marked = any(data.anomalous.masks) if data.anomalous else shown.frames_synthetic
    heads = [
        "image (anomaly in blue)" if marked else "image",
        "anomaly heatmap",
        "nearest normal image",
    ]
    compared = min(examples.MAX_COMPARED_IMAGES, len(data.training))
    caption = (
        "Images of each kind, from the lowest to the highest score. The heatmap is drawn as the "
        "service draws it: boxes are the regions that it reports. Beside it is the training image "
        f"with the nearest embedding by cosine, of {compared}."
    )
    if data.anomalous is None and shown.shows_anomalous:
        caption += (
            " No test image is anomalous. Of each kind of synthetic anomaly, the one of median "
            "score is shown. The detector was fitted to its image, so a real anomaly is harder to "
            "find."
        )
    return Picture(
        "heatmaps", "Heatmaps", caption, plots.draw_overlay_table(heads, rows), HEATMAPS_BYTES
    )


def _draw_scores(results: DetectorResults) -> Picture:
    groups = [
        Group("calibration images, normal", np.array(results.calibration.scores), plots.BLACK)
    ]
    if results.test is not None:
        groups.append(Group("test images, normal", results.test.scores, plots.BLUE))
    if results.anomalous is not None and results.data.anomalous:
        title = f"test images, anomalous ({results.data.anomalous.title})"
        groups.append(Group(title, results.anomalous.scores, plots.VERMILLION))
    caption = ""
    if results.trials is not None:
        scores = _standardise_synthetic(results.trials)
        groups.append(Group("synthetic anomalies of the trials", scores, plots.ORANGE))
        caption = (
            " Synthetic anomalies were scored in the trials, by components fitted to fewer images."
        )
    return _draw_histograms(groups, results.calibration, caption)


def _draw_histograms(groups: Sequence[Group], calibrated: Calibration, caption: str) -> Picture:
    conformal, count = ConformalScores(calibrated), len(calibrated.scores)
    levels = {rate: conformal.threshold(rate) for rate in RATES if allows_rate(count, rate)}
    thresholds = {rate: level for rate, level in levels.items() if level is not None}
    about = (
        f"The score is the {calibrated.method}. At or right of a line, an image is called "
        "anomalous at that false positive rate. The last bar holds all higher scores."
    )
    return Picture(
        "scores",
        "Anomaly scores",
        about + caption,
        plots.draw_histograms(groups, thresholds),
        PLOT_BYTES,
    )


def _standardise_synthetic(trials: Trials) -> Floats:
    """Scores of the synthetic anomalies, in standard deviations of normal images."""
    if len(trials.choice.names) > 1:
        return trials.chosen.anomalous  # the mean of standardised components
    mean, deviation = selection.measure_spread(trials.chosen.normal)
    return np.asarray((trials.chosen.anomalous - mean) / deviation)


def _draw_roc(model: PublishedBundle, results: DetectorResults) -> Iterator[Picture]:
    if results.test is None or results.anomalous is None:
        return
    curves = {model.manifest.name: (results.test.scores, results.anomalous.scores)}
    curves |= {f"{name} (baseline)": scores for name, scores in results.baselines.items()}
    caption = (
        f"On {len(results.test.scores)} normal and {len(results.anomalous.scores)} anomalous test "
        "images, beside baselines on pixels."
    )
    yield Picture("roc", "ROC", caption, plots.draw_roc(curves), PLOT_BYTES)


def _draw_missed(shown: Examples) -> Iterator[Section]:
    """Synthetic anomalies below the threshold at the lowest rate that the trials allow."""
    trials = shown.results.trials
    lowest = _find_lowest_threshold(trials) if trials else None
    if trials is None or lowest is None:
        return
    rate, threshold = lowest
    missed = np.flatnonzero(trials.chosen.anomalous < threshold)
    missed = missed[np.argsort(-trials.anomalies.extents[missed], kind="stable")]
    title, total = "Synthetic anomalies that were missed", len(trials.anomalies)
    if not len(missed):
        yield Text(title, [f"None of {total} was missed at a false positive rate of {rate}."])
        return
    framed = "in blue frames, " if shown.tried else ""
    caption = (
        f"At a false positive rate of {rate}, {len(missed)} of {total} were missed. "
        f"The largest of each kind are shown, {framed}with their kind and extent."
    )
    figure = plots.draw_grid(shown.draw_missed(trials, missed))
    yield Picture("missed", title, caption, figure, HEATMAPS_BYTES // 2)


def _find_lowest_threshold(trials: Trials) -> tuple[float, float] | None:
    """The lowest false positive rate that the trials allow, and its threshold."""
    thresholds = ((rate, selection.threshold(trials.chosen.normal, rate)) for rate in RATES)
    return next(((rate, level) for rate, level in thresholds if level is not None), None)
