"""Images that the report of a detector shows, with their heatmaps and nearest normal images."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle import imaging
from bundle.conformal import ConformalScores, format_rate
from bundle.manifest import Calibration, InputSpec
from bundle.tensors import Floats, Images, Pixels
from training.data import image_file, photo_folder
from training.data.image_set import AnomalousImages, ImageSet, Photographs
from training.detector.synthetic_anomalies import KINDS, MIN_VISIBLE_LEVELS
from training.detector.trials import Trials
from training.evaluation import detector_plots as plots
from training.evaluation.detector_plots import Mask, PictureRow
from training.evaluation.detector_results import DetectorResults, DetectorScores, score_images
from training.export.graph_runner import Graphs
from training.progress import silence

NORMAL_IMAGES, ANOMALOUS_IMAGES, MISSED_IMAGES = 2, 6, 6
NORMAL_IMAGES_ALONE = 4  # if no image is anomalous
MAX_COMPARED_IMAGES = 300  # training images, of which the nearest is shown
CHUNK_IMAGES = 64  # decoded and encoded at once

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Rows of pictures: an image, the heatmap over it, and the nearest normal image.

    `tried` are the normal images of the trials. With them, synthetic anomalies are framed.
    """

    results: DetectorResults
    tried: ImageSet | None

    def draw_rows(self) -> Iterator[PictureRow]:
        """Rows of normal images, then of labelled or else synthetic anomalies."""
        scored, anomalous = self.results.test, self.results.anomalous
        yield from self._draw_normal(scored) if scored else self._draw_training()
        if self.results.data.anomalous and anomalous:
            yield from self._draw_labelled(self.results.data.anomalous, anomalous)
        elif self.results.trials is not None:
            yield from self._draw_synthetic(self.results.trials)

    @property
    def shows_anomalous(self) -> bool:
        """True if there are anomalous images to show."""
        return self.results.data.anomalous is not None or self.results.trials is not None

    @property
    def frames_synthetic(self) -> bool:
        """True if synthetic anomalies are framed."""
        return self.results.trials is not None and self.tried is not None

    def draw_missed(self, trials: Trials, missed: Indices) -> list[PictureRow]:
        """Cells of some of these synthetic anomalies: one of each kind, then a second of each."""
        kinds = trials.kinds[missed]
        before = np.array([int((kinds[:rank] == kind).sum()) for rank, kind in enumerate(kinds)])
        cells = []
        for index in missed[np.lexsort((kinds, before))][:MISSED_IMAGES]:
            extent = f"{trials.anomalies.extents[index]:.0%} of the shorter side"
            title = f"{_name_kind(trials, index)}\n{extent}"
            cells.append(PictureRow(title, [self._frame(trials, index)[0]]))
        return cells

    @property
    def _count(self) -> int:
        return NORMAL_IMAGES if self.shows_anomalous else NORMAL_IMAGES_ALONE

    @cached_property
    def _nearest(self) -> "_NearestImage":
        return _NearestImage(self.results.graphs, self.results.data.training, self.results.spec)

    def _draw_normal(self, scored: DetectorScores) -> Iterator[PictureRow]:
        for index in _spread_indices(scored.scores, self._count):
            image = self.results.data.test.take(np.array([index]))
            yield self._draw_row(
                self._format_title("normal", scored.scores[index]), image, scored.maps[index]
            )

    def _draw_training(self) -> Iterator[PictureRow]:
        training = self.results.data.training
        images = training.take(np.arange(min(self._count, len(training))))
        maps = score_images(self.results.graphs, images.read(self.results.spec, silence)).maps
        for index, error_map in enumerate(maps):
            title = "normal: a training image; a new image would score higher"
            yield self._draw_row(title, images.take(np.array([index])), error_map)

    def _draw_labelled(
        self, anomalous: AnomalousImages, scored: DetectorScores
    ) -> Iterator[PictureRow]:
        for index in _select_of_each_kind(scored.scores, anomalous.labels):
            title = self._format_title(
                f"anomalous, {anomalous.kinds[anomalous.labels[index]]}", scored.scores[index]
            )
            mask = anomalous.masks[index] if anomalous.masks else None
            yield self._draw_row(
                title, anomalous.images.take(np.array([index])), scored.maps[index], mask
            )

    def _draw_synthetic(self, trials: Trials) -> Iterator[PictureRow]:
        """The anomaly of median trial score of each kind, scored by the published graphs."""
        results, spec = self.results, self.results.spec
        for kind in range(len(KINDS)):
            of_kind = np.flatnonzero(trials.kinds == kind)
            (median,) = _spread_indices(trials.chosen.anomalous[of_kind], 1)
            index = of_kind[median]
            image = imaging.fit(trials.anomalies.images[index], spec)[None]
            scored = score_images(results.graphs, image)
            shown, framed = self._frame(trials, index)[::-1]
            drawn = plots.draw_overlay(shown, scored.maps[0], results.calibration, spec)
            title = self._format_title(
                f"synthetic anomaly, {_name_kind(trials, index)}", scored.scores[0]
            )
            yield PictureRow(title, [framed, drawn, show(self._nearest.find(image), spec)])

    def _draw_row(
        self, title: str, image: ImageSet, error_map: Floats, mask: Path | None = None
    ) -> PictureRow:
        spec = self.results.spec
        shown = show(image, spec)
        drawn = plots.draw_overlay(shown, error_map, self.results.calibration, spec)
        marked = photo_folder.decode_mask(mask, (shown.shape[0], shown.shape[1])) if mask else None
        outlined = shown if marked is None else plots.draw_outline(shown, marked)
        return PictureRow(
            title, [outlined, drawn, show(self._nearest.find(image.read(spec, silence)), spec)]
        )

    def _format_title(self, kind: str, score: np.float32) -> str:
        return f"{kind}: {format_verdict(float(score), self.results.calibration)}"

    def _frame(self, trials: Trials, index: int) -> tuple[Pixels, Pixels]:
        """A synthetic anomaly in a frame, if its normal image is known, and without the frame."""
        anomalies = trials.anomalies
        spec = self.results.photo_input.spec(self.results.data.sizes[-1])
        image, sources = anomalies.images[index], anomalies.sources[index : index + 1]
        source = None if self.tried is None else self.tried.take(sources)
        proportions = source or self.results.data.training.take(np.array([0]))
        size = plots.fit_into_box(read_size(proportions, spec))
        shown = plots.enlarge(image, size, spec)
        if source is None:
            return shown, shown
        return plots.draw_frame(
            shown, _find_changes(image, source.read(spec, silence)[0], size, spec)
        ), shown


def draw_calibration_rows(
    graphs: Graphs, calibrated: Calibration, normal: ImageSet, spec: InputSpec
) -> Iterator[PictureRow]:
    """Rows of the calibration images with the highest scores, with their heatmaps."""
    scored = score_images(graphs, normal.read(spec, silence))
    for index in np.argsort(-scored.scores, kind="stable")[:ANOMALOUS_IMAGES]:
        image = show(normal.take(np.array([index])), spec)
        drawn = plots.draw_overlay(image, scored.maps[index], calibrated, spec)
        yield PictureRow(f"score {scored.scores[index]:.3g}", [image, drawn])


def format_verdict(score: float, calibrated: Calibration) -> str:
    """A line with a score, its p-value, and the verdict of the service at its default rate."""
    conformal = ConformalScores(calibrated)
    rate = conformal.default_rate
    (verdict,) = conformal.verdicts(np.array([score], np.float32), rate)
    text = f"score {score:.3g}, p-value {verdict.p_value:.2g}"
    if verdict.is_anomaly is None:
        return text
    called = "called anomalous" if verdict.is_anomaly else "called normal"
    return f"{text}, {called} at a rate of {format_rate(rate)}"


def show(image: ImageSet, spec: InputSpec) -> Pixels:
    """Resize an image to the size at which the report shows it; its proportions are kept."""
    size = plots.fit_into_box(read_size(image, spec))
    return (
        read_at(image, size, spec)
        if isinstance(image, Photographs)
        else _enlarge(image, size, spec)
    )


def read_at(image: ImageSet, size: tuple[int, int], spec: InputSpec) -> Pixels:
    """Read an image at some (height, width)."""
    shown = spec.model_copy(update={"height": size[0], "width": size[1]})
    return np.asarray(image.read(shown, silence)[0])


def read_size(image: ImageSet, spec: InputSpec) -> tuple[int, int]:
    """Read the height and width of the first image, as it is stored."""
    if isinstance(image, Photographs):
        return image_file.read(image.paths[0], spec).original_size or (spec.height, spec.width)
    return spec.height, spec.width


def _enlarge(image: ImageSet, size: tuple[int, int], spec: InputSpec) -> Pixels:
    return plots.enlarge(image.read(spec, silence)[0], size, spec)


def _name_kind(trials: Trials, index: int) -> str:
    kinds: list[str] = [*KINDS]
    return kinds[int(trials.kinds[index])]


def _find_changes(image: Pixels, before: Pixels, size: tuple[int, int], spec: InputSpec) -> Mask:
    """Mask at another size, true where an image differs from its normal image."""
    difference = np.abs(image.astype(np.int16) - before).max(axis=2, keepdims=True)
    changed = np.where(difference >= MIN_VISIBLE_LEVELS, np.uint8(255), np.uint8(0))
    return np.asarray(plots.enlarge(changed, size, spec)[..., 0] > 127)


def _spread_indices(scores: Floats, count: int) -> Indices:
    """Indices of at most `count` scores, from the lowest to the highest; of one, the median."""
    count = min(count, len(scores))
    last = len(scores) - 1
    ranks = np.linspace(0, last, count) if count > 1 else np.array([last / 2])
    return np.asarray(np.argsort(scores, kind="stable")[np.rint(ranks).astype(int)])


def _select_of_each_kind(scores: Floats, labels: Indices) -> Iterator[int]:
    """Indices of at most `ANOMALOUS_IMAGES` images, evenly divided between the kinds."""
    kinds = np.unique(labels)[:ANOMALOUS_IMAGES]
    shares = [len(share) for share in np.array_split(np.arange(ANOMALOUS_IMAGES), len(kinds))]
    for kind, share in zip(kinds, shares, strict=True):
        of_kind = np.flatnonzero(labels == kind)
        yield from of_kind[_spread_indices(scores[of_kind], share)].tolist()


class _NearestImage:
    """Search for the training image with the nearest embedding, by cosine."""

    def __init__(self, graphs: Graphs, training: ImageSet, spec: InputSpec) -> None:
        self._graphs, count = graphs, len(training)
        self._images = training.take(
            np.unique(np.linspace(0, count - 1, min(MAX_COMPARED_IMAGES, count)).astype(int))
        )
        chunks = np.array_split(np.arange(len(self._images)), -(-len(self._images) // CHUNK_IMAGES))
        images = (self._images.take(chunk).read(spec, silence) for chunk in chunks)
        self._embeddings = np.concatenate([self._embed(chunk) for chunk in images])

    def find(self, image: Images) -> ImageSet:
        """Find the nearest training image to (1, height, width, channels), but not itself."""
        cosines = self._embeddings @ self._embed(image)[0]
        order = np.argsort(-cosines, kind="stable")
        nearest = order[1] if cosines[order[0]] > 1 - 1e-6 and len(order) > 1 else order[0]
        return self._images.take(np.array([nearest]))

    def _embed(self, images: Images) -> Floats:
        latents = self._graphs.chain_in_batches(["encoder"], ["latents"], images=images)["latents"]
        return np.asarray(
            latents / np.maximum(np.linalg.norm(latents, axis=1, keepdims=True), 1e-12)
        )
