"""The report of a detector: what its trials found, and pictures of its anomaly maps and scores."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from bundle.conformal import RATES, ConformalScores, can_tell
from bundle.manifest import Calibration, Selection
from training.data.image_set import ImageSet
from training.detector import selection
from training.detector.components import BASELINES
from training.detector.synthetic_anomalies import KINDS
from training.detector.trials import Trials
from training.evaluation import detector_advice, page
from training.evaluation import detector_examples as examples
from training.evaluation import detector_plots as plots
from training.evaluation.detector_examples import Examples
from training.evaluation.detector_plots import Floats, Group
from training.evaluation.detector_results import DetectorResults
from training.evaluation.page import Picture, Section, Table, Text
from training.export.published import Published

LARGE_PICTURE, SMALL_PICTURE = 700_000, 250_000  # bytes


def write(
    model: Published, results: DetectorResults, directory: Path, tried: ImageSet | None = None
) -> Path:
    """Draw all that there is to see of a detector; gives the page.

    `tried` are the normal images of the trials: with them, synthetic anomalies are framed.
    """
    shown = Examples(results, tried)
    sections = chain(
        _trials(model, results.calibration),
        [_heatmaps(shown), _scores(results)],
        _roc(model, results),
        _missed(shown),
        [page.metrics(model)] if model.manifest.metrics else [],
    )
    return page.write_page(model, sections, directory)


def write_calibration(model: Published, normal: ImageSet, directory: Path) -> Path:
    """Draw what a calibration on these images came to; gives the page."""
    spec, calibrated = model.manifest.input, model.manifest.calibration
    assert calibrated is not None  # it has just been made
    rows = list(examples.calibration_rows(model.graphs, calibrated, normal, spec))
    caption = (
        f"The {len(rows)} calibration images with the highest scores. If one is anomalous, "
        "take it out and calibrate again."
    )
    figure = plots.table_of_overlays(["image", "anomaly heatmap"], rows)
    groups = [Group("calibration images", np.array(calibrated.scores), plots.BLACK)]
    sections = (
        Text("Calibration", [detector_advice.calibration_line(len(calibrated.scores))]),
        Picture("heatmaps", "Heatmaps", caption, figure, LARGE_PICTURE),
        _histograms(groups, calibrated, ""),
        page.metrics(model),
    )
    return page.write_page(model, sections, directory)


def _trials(model: Published, calibrated: Calibration) -> Iterator[Section]:
    """Tables of the trials, and what they and the calibration mean."""
    chosen = model.manifest.selection
    if chosen and chosen.synthetic:
        yield _candidates(chosen, detector_advice.labelled(model.manifest.metrics))
        yield Table(
            "Sizes and memory banks that were tried",
            ("", "mean AUROC on synthetic anomalies"),
            [(name, f"{area:.3f}") for name, area in chosen.compared.items()],
        )
        yield Table(
            "Recall: share of synthetic anomalies found",
            ("false positive rate", *KINDS),
            [(rate, *(f"{of[kind]:.2f}" for kind in KINDS)) for rate, of in chosen.recall.items()],
        )
    sentences = [
        detector_advice.calibration_line(len(calibrated.scores)) + ".",
        *(chosen.advice if chosen else ()),
    ]
    yield Text("What would make it better", sentences)


def _candidates(chosen: Selection, labelled: Mapping[str, float]) -> Table:
    """AUROC by candidate and kind of synthetic anomaly, and on labelled images where there are any."""
    rows = []
    for name, areas in chosen.synthetic.items():
        values = [f"{area:.3f}" for area in (*areas.values(), np.mean([*areas.values()]))]
        if labelled:
            values.append(f"{labelled[name]:.3f}" if name in labelled else "")
        rows.append((_title(name, chosen), *values))
    return Table(
        "Trials: AUROC by candidate and kind of synthetic anomaly",
        ("candidate", *KINDS, "mean", *(["labelled images"] if labelled else [])),
        sorted(rows, key=lambda row: not row[0].startswith("chosen")),
        "Synthetic anomalies were drawn into normal images that were held out. 1 is perfect, 0.5 is chance. A baseline "
        "takes a minute and no backbone; a detector should be better. Candidates are compared at the first working "
        "size, and the chosen one is measured at its own.",
    )


def _title(name: str, chosen: Selection) -> str:
    if name == "chosen":
        return f"chosen: {' + '.join(chosen.score)}"
    return f"{name} (baseline)" if name in BASELINES else name


def _heatmaps(shown: Examples) -> Picture:
    data = shown.results.data
    rows = list(shown.rows())
    marked = any(data.anomalous.masks) if data.anomalous else shown.frames_synthetic
    heads = [
        "image (anomaly in blue)" if marked else "image",
        "anomaly heatmap",
        "nearest normal image",
    ]
    caption = (
        "Images of each kind, from the lowest to the highest score. The heatmap is drawn as the service draws it: "
        "boxes are the regions that it reports. Beside it is the training image whose embedding is the nearest by "
        f"cosine, of {min(examples.COMPARED, len(data.training))}."
    )
    if data.anomalous is None and shown.shows_anomalous:
        caption += (
            " No test image is anomalous: of each kind of synthetic anomaly, the one of middle score is shown. "
            "It is in an image that the detector was fitted to, so a real one is harder to find."
        )
    return Picture(
        "heatmaps", "Heatmaps", caption, plots.table_of_overlays(heads, rows), LARGE_PICTURE
    )


def _scores(results: DetectorResults) -> Picture:
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
        scores = _standardised(results.trials)
        groups.append(Group("synthetic anomalies of the trials", scores, plots.ORANGE))
        caption = (
            " Synthetic anomalies were scored in the trials, by components fitted to fewer images."
        )
    return _histograms(groups, results.calibration, caption)


def _histograms(groups: Sequence[Group], calibrated: Calibration, caption: str) -> Picture:
    conformal, count = ConformalScores(calibrated), len(calibrated.scores)
    found = {rate: conformal.threshold(rate) for rate in RATES if can_tell(count, rate)}
    thresholds = {rate: level for rate, level in found.items() if level is not None}
    about = (
        f"The score is the {calibrated.method}. At or right of a line an image is called anomalous "
        "at that false positive rate. "
        "The last bar holds all higher scores."
    )
    return Picture(
        "scores",
        "Anomaly scores",
        about + caption,
        plots.histograms(groups, thresholds),
        SMALL_PICTURE,
    )


def _standardised(trials: Trials) -> Floats:
    """Scores of the trials' synthetic anomalies, in standard deviations of normal images as a scorer's are."""
    if len(trials.choice.names) > 1:
        return trials.chosen.anomalous  # the sum of standardised components
    mean, deviation = selection.spread(trials.chosen.normal)
    return np.asarray((trials.chosen.anomalous - mean) / deviation)


def _roc(model: Published, results: DetectorResults) -> Iterator[Picture]:
    if results.test is None or results.anomalous is None:
        return
    curves = {model.manifest.name: (results.test.scores, results.anomalous.scores)}
    curves |= {f"{name} (baseline)": scores for name, scores in results.baselines.items()}
    caption = (
        f"On {len(results.test.scores)} normal and {len(results.anomalous.scores)} anomalous test images, "
        "beside simple methods on pixels."
    )
    yield Picture("roc", "ROC", caption, plots.roc(curves), SMALL_PICTURE)


def _missed(shown: Examples) -> Iterator[Section]:
    """Synthetic anomalies that score below the threshold of the trials at the lowest rate that they can tell."""
    trials = shown.results.trials
    found = _lowest_threshold(trials) if trials else None
    if trials is None or found is None:
        return
    rate, threshold = found
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
    figure = plots.grid(shown.missed(trials, missed))
    yield Picture("missed", title, caption, figure, LARGE_PICTURE // 2)


def _lowest_threshold(trials: Trials) -> tuple[float, float] | None:
    found = ((rate, selection.threshold(trials.chosen.normal, rate)) for rate in RATES)
    return next(((rate, level) for rate, level in found if level is not None), None)
