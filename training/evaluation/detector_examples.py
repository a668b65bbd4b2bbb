"""Images that the report of a detector shows, each with what the detector makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle import imaging
from bundle.conformal import ConformalScores, as_text
from bundle.manifest import Calibration, InputSpec
from bundle.tensors import Images
from training.data import image_file, photo_folder
from training.data.image_set import ImageSet, Photographs
from training.detector.synthetic_anomalies import KINDS, VISIBLE
from training.detector.trials import Trials
from training.evaluation import detector_plots as plots
from training.evaluation.detector_plots import Floats, Mask, Pixels, Row
from training.evaluation.detector_results import DetectorResults, Scored
from training.export.graph_runner import Graphs
from training.progress import silence

NORMAL, ANOMALOUS, MISSED = 2, 6, 6  # images shown
NORMAL_ALONE = 4  # images shown where none is anomalous
COMPARED = 300  # training images at most, of which the nearest is shown
CHUNK = 64  # images that are decoded and encoded at once

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Rows of pictures: an image, the heatmap over it, and the nearest normal image.

    `tried` are the normal images of the trials: with them, synthetic anomalies are framed.
    """

    results: DetectorResults
    tried: ImageSet | None

    def rows(self) -> Iterator[Row]:
        """Normal images and then anomalous ones: labelled, or else synthetic."""
        yield from self._normal() if self.results.test is not None else self._training()
        if self.results.data.anomalous is not None:
            yield from self._labelled()
        elif self.results.trials is not None:
            yield from self._synthetic(self.results.trials)

    @property
    def shows_anomalous(self) -> bool:
        return self.results.data.anomalous is not None or self.results.trials is not None

    @property
    def frames_synthetic(self) -> bool:
        return self.results.trials is not None and self.tried is not None

    def missed(self, trials: Trials, missed: Indices) -> list[Row]:
        """Some of the synthetic anomalies with these indices: one of each kind, then a second of each."""
        kinds = trials.kinds[missed]
        turns = np.array([int((kinds[:place] == kind).sum()) for place, kind in enumerate(kinds)])
        cells = []
        for index in missed[np.lexsort((kinds, turns))][:MISSED]:
            title = f"{_kind_of(trials, index)}\n{trials.anomalies.extents[index]:.0%} of the shorter side"
            cells.append(Row(title, [self._framed(trials, index)[0]]))
        return cells

    @property
    def _count(self) -> int:
        return NORMAL if self.shows_anomalous else NORMAL_ALONE

    @cached_property
    def _nearest(self) -> "_Nearest":
        return _Nearest(self.results.graphs, self.results.data.training, self.results.spec)

    def _normal(self) -> Iterator[Row]:
        scored = self.results.test
        assert scored is not None  # there are normal test images
        for index in _spread(scored.scores, self._count):
            image = self.results.data.test.take(np.array([index]))
            yield self._row(self._title("normal", scored.scores[index]), image, scored.maps[index])

    def _training(self) -> Iterator[Row]:
        training = self.results.data.training
        images = training.take(np.arange(min(self._count, len(training))))
        maps = score(self.results.graphs, images.read(self.results.spec, silence)).maps
        for index, error_map in enumerate(maps):
            title = "normal: a training image, so a new one would score higher"
            yield self._row(title, images.take(np.array([index])), error_map)

    def _labelled(self) -> Iterator[Row]:
        anomalous, scored = self.results.data.anomalous, self.results.anomalous
        assert anomalous is not None  # there are anomalous test images
        assert scored is not None
        for index in _of_each_kind(scored.scores, anomalous.labels):
            title = self._title(
                f"anomalous, {anomalous.kinds[anomalous.labels[index]]}", scored.scores[index]
            )
            mask = anomalous.masks[index] if anomalous.masks else None
            yield self._row(
                title, anomalous.images.take(np.array([index])), scored.maps[index], mask
            )

    def _synthetic(self, trials: Trials) -> Iterator[Row]:
        """The middle one of each kind, by the scores of the trials, as the published graphs see it."""
        results, spec = self.results, self.results.spec
        for kind in range(len(KINDS)):
            of_kind = np.flatnonzero(trials.kinds == kind)
            (place,) = _spread(trials.chosen.anomalous[of_kind], 1)
            index = of_kind[place]
            image = imaging.fit(trials.anomalies.images[index], spec)[None]
            found = score(results.graphs, image)
            shown, framed = self._framed(trials, index)[::-1]
            drawn = plots.draw_overlay(shown, found.maps[0], results.calibration, spec)
            title = self._title(f"synthetic anomaly, {_kind_of(trials, index)}", found.scores[0])
            yield Row(title, [framed, drawn, show(self._nearest.find(image), spec)])

    def _row(self, title: str, image: ImageSet, error_map: Floats, mask: Path | None = None) -> Row:
        spec = self.results.spec
        shown = show(image, spec)
        drawn = plots.draw_overlay(shown, error_map, self.results.calibration, spec)
        marked = photo_folder.decode_mask(mask, (shown.shape[0], shown.shape[1])) if mask else None
        outlined = shown if marked is None else plots.draw_outline(shown, marked)
        return Row(
            title, [outlined, drawn, show(self._nearest.find(image.read(spec, silence)), spec)]
        )

    def _title(self, kind: str, of: np.float32) -> str:
        return f"{kind}: {verdict(float(of), self.results.calibration)}"

    def _framed(self, trials: Trials, index: int) -> tuple[Pixels, Pixels]:
        """A synthetic anomaly as it is shown, in a frame if its normal image is known; and without one."""
        made, spec = trials.anomalies, self.results.photo_input.spec(self.results.data.sizes[-1])
        image = made.images[index]
        source = None if self.tried is None else self.tried.take(made.sources[index : index + 1])
        proportions = source or self.results.data.training.take(np.array([0]))
        size = plots.fit_into_box(own_size(proportions, spec))
        shown = plots.enlarge(image, size, spec)
        if source is None:
            return shown, shown
        return plots.draw_frame(
            shown, _changed(image, source.read(spec, silence)[0], size, spec)
        ), shown


def calibration_rows(
    graphs: Graphs, calibrated: Calibration, normal: ImageSet, spec: InputSpec
) -> Iterator[Row]:
    """Calibration images with the highest scores, and the heatmaps over them."""
    scored = score(graphs, normal.read(spec, silence))
    for index in np.argsort(-scored.scores, kind="stable")[:ANOMALOUS]:
        image = show(normal.take(np.array([index])), spec)
        drawn = plots.draw_overlay(image, scored.maps[index], calibrated, spec)
        yield Row(f"score {scored.scores[index]:.3g}", [image, drawn])


def verdict(of: float, calibrated: Calibration) -> str:
    """A score, and what the service says of it at its default rate."""
    conformal = ConformalScores(calibrated)
    rate = conformal.default_rate
    (found,) = conformal.verdicts(np.array([of], np.float32), rate)
    called = "called anomalous" if found.is_anomaly else "called normal"
    at_rate = "" if found.is_anomaly is None else f", {called} at a rate of {as_text(rate)}"
    return f"score {of:.3g}, p-value {found.p_value:.2g}{at_rate}"


def score(graphs: Graphs, images: Images) -> Scored:
    """Scores and anomaly maps of images by published graphs."""
    found = graphs.chain_in_batches(graphs.scoring, ["scores", "error_maps"], images=images)
    return Scored(found["scores"], found["error_maps"])


def show(image: ImageSet, spec: InputSpec) -> Pixels:
    """One image at the size at which it is shown, its proportions kept."""
    size = plots.fit_into_box(own_size(image, spec))
    return (
        read_at(image, size, spec)
        if isinstance(image, Photographs)
        else _enlarged(image, size, spec)
    )


def read_at(image: ImageSet, size: tuple[int, int], spec: InputSpec) -> Pixels:
    """A photograph at some (height, width)."""
    shown = spec.model_copy(update={"height": size[0], "width": size[1]})
    return np.asarray(image.read(shown, silence)[0])


def own_size(image: ImageSet, spec: InputSpec) -> tuple[int, int]:
    """Height and width of the first image as it is stored."""
    if isinstance(image, Photographs):
        return image_file.read(image.paths[0], spec).original_size or (spec.height, spec.width)
    return spec.height, spec.width


def _enlarged(image: ImageSet, size: tuple[int, int], spec: InputSpec) -> Pixels:
    return plots.enlarge(image.read(spec, silence)[0], size, spec)


def _kind_of(trials: Trials, index: int) -> str:
    kinds: list[str] = [*KINDS]
    return kinds[int(trials.kinds[index])]


def _changed(image: Pixels, before: Pixels, size: tuple[int, int], spec: InputSpec) -> Mask:
    """True where an image differs from the one it was made of, at another size."""
    difference = np.abs(image.astype(np.int16) - before).max(axis=2, keepdims=True)
    changed = np.where(difference >= VISIBLE, np.uint8(255), np.uint8(0))
    return np.asarray(plots.enlarge(changed, size, spec)[..., 0] > 127)


def _spread(scores: Floats, count: int) -> Indices:
    """Indices of at most `count` scores, from the lowest to the highest; of one, the middle one."""
    count = min(count, len(scores))
    places = (
        np.linspace(0, len(scores) - 1, count) if count > 1 else np.array([(len(scores) - 1) / 2])
    )
    return np.asarray(np.argsort(scores, kind="stable")[np.rint(places).astype(int)])


def _of_each_kind(scores: Floats, labels: Indices) -> Iterator[int]:
    """Indices of at most `ANOMALOUS` images, as many of each kind as there is room for."""
    kinds = np.unique(labels)[:ANOMALOUS]
    shares = [len(part) for part in np.array_split(np.arange(ANOMALOUS), len(kinds))]
    for kind, share in zip(kinds, shares, strict=True):
        of_kind = np.flatnonzero(labels == kind)
        yield from of_kind[_spread(scores[of_kind], share)].tolist()


class _Nearest:
    """The training image whose embedding is the nearest to that of another image."""

    def __init__(self, graphs: Graphs, training: ImageSet, spec: InputSpec) -> None:
        self._graphs, count = graphs, len(training)
        self._images = training.take(
            np.unique(np.linspace(0, count - 1, min(COMPARED, count)).astype(int))
        )
        parts = np.array_split(np.arange(len(self._images)), -(-len(self._images) // CHUNK))
        read = (self._images.take(part).read(spec, silence) for part in parts)
        self._embeddings = np.concatenate([self._embed(images) for images in read])

    def find(self, image: Images) -> ImageSet:
        """The nearest to an image (1, height, width, channels), but not that image itself."""
        cosines = self._embeddings @ self._embed(image)[0]
        order = np.argsort(-cosines, kind="stable")
        nearest = order[1] if cosines[order[0]] > 1 - 1e-6 and len(order) > 1 else order[0]
        return self._images.take(np.array([nearest]))

    def _embed(self, images: Images) -> Floats:
        latents = self._graphs.chain_in_batches(["encoder"], ["latents"], images=images)["latents"]
        return np.asarray(
            latents / np.maximum(np.linalg.norm(latents, axis=1, keepdims=True), 1e-12)
        )
