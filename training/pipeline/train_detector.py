"""Training of a detector, from a recipe and images to a published bundle."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bundle.manifest import Calibration, GraphName, InputSpec, Selection
from bundle.tensors import Images, TensorName
from training import progress
from training.config import Size
from training.data.image_set import DetectorData, ImageSet
from training.detector import encoder, fitters
from training.detector.fit import FittedDetector, choose_map_component, fit
from training.detector.image_features import MAX_BATCH_IMAGES, ExportedEncoder, ImageFeatures, join
from training.detector.scorer import SCORER_OUTPUTS
from training.detector.synthetic_anomalies import KINDS
from training.detector.trials import ANOMALIES_PER_KIND, DetectorSearch, Trials, name_stage
from training.errors import WeakDetectorError
from training.evaluation import detector_advice, detector_report
from training.evaluation.detector_results import DetectorResults
from training.export import calibration, golden, onnx_export, parity
from training.export.graph_modules import Graph
from training.export.graph_runner import Graphs
from training.export.published import GOLDEN, REPORT, PublishedBundle
from training.pipeline import draft_manifest, load_data, publish
from training.pipeline.destinations import Destination
from training.pipeline.draft_manifest import DETECTOR_GRAPHS
from training.pipeline.publish import Published
from training.progress import Log, Stages, silence
from training.recipe import DetectorRecipe

EXPORT_SIZE: Size = (256, 256)  # its graph is resized for other working sizes
CHUNK_IMAGES = 64  # decoded and encoded at once, to limit memory
PARITY_TOLERANCES = dict.fromkeys(("scores", "error_maps"), parity.DETECTOR_TOLERANCE)


def run(
    recipe: DetectorRecipe,
    directory: Path | None,
    models: Destination,
    accept_weak: bool,
    log: Log,
    compatible: bool = False,
) -> Published:
    """Choose, fit, calibrate, export, check, evaluate, draw the report and publish.

    Raises DomainError or OSError; then nothing is published.
    Unless `accept_weak`, raises WeakDetectorError if the trials show a weak detector. `compatible`
    is as in `publish.publish`.
    """
    revision, started = draft_manifest.read_git_revision(), time.monotonic()
    data = load_data.load_detector(recipe, directory, log)
    models.check()  # fails before the trials, if it is unwritable
    with (
        Stages(log, _estimate_seconds(recipe, data)) as log,
        models.open_staging(recipe.name) as staging,
        open_encoders(recipe) as encoders,
    ):
        tried = sample_normal(recipe, data)
        trials, selected = select(recipe, data, tried, encoders, accept_weak, log)
        fitted = fit_chosen(recipe, data, trials, encoders, log)
        progress.begin("exporting", log)
        log("exporting, and comparing ONNX Runtime with torch")
        spec = recipe.spec(trials.choice.size)
        graphs, differences = _export(encoders, fitted, spec, data, staging)
        calibrated = _calibrate(fitted, data)
        results = DetectorResults(graphs, calibrated, spec, data, recipe.input, recipe.seed, trials)
        provenance = draft_manifest.record_provenance(
            recipe,
            revision,
            differences,
            device=f"CPU, {torch.get_num_threads()} threads",
            minutes=round((time.monotonic() - started) / 60, 2),
            backbone=encoders.module.weights,
        )
        draft = draft_manifest.draft_detector(
            recipe,
            f"{encoders.module.describe()}; {fitted.scorer.describe()}",
            fitted.scorer.latents.latent_dim,
            selected,
            results,
            provenance,
            publish.compute_digests(staging),
        )

        def draw(model: PublishedBundle) -> None:
            progress.begin("report", log)
            log("drawing the report")
            detector_report.write(model, results, model.directory / REPORT, tried)

        published = publish.publish(models, staging, draft, draw, compatible)
    _log_conclusion(trials, selected, calibrated, draft.metrics, log)
    return published


def _calibrate(fitted: FittedDetector, data: DetectorData) -> Calibration:
    method = fitted.scorer.describe()
    if not data.calibration:
        method += calibration.CROSS_FITTED_SUFFIX
    return calibration.summarise(fitted.scores, fitted.maps, method, fitted.latent_distances)


def _estimate_seconds(recipe: DetectorRecipe, data: DetectorData) -> dict[str, float]:
    """Estimate the seconds of each stage, for photographs on two cores."""
    normal = min(recipe.detector.trials, len(data.training))
    tried = normal + ANOMALIES_PER_KIND * len(KINDS)
    areas = {size: size[0] * size[1] / 256**2 for size in data.sizes}
    trials = {name_stage(size): 0.01 * tried * areas[size] for size in data.sizes}
    trials[name_stage(data.sizes[0])] += 5 + 0.02 * tried * areas[data.sizes[0]]
    encoding = 0.02 * len(data.training) * areas[data.sizes[0]]
    fitted = {"encoding": encoding, "fitting": 1 + 2 * encoding, "exporting": 2, "report": 4}
    return {"decoding": 0.01 * normal} | trials | fitted


class Encoders(NamedTuple):
    """An encoder, and a directory of its graphs, one for each working size in use."""

    module: encoder.Encoder
    recipe: DetectorRecipe
    directory: Path

    def export(self, size: Size) -> Path:
        """Export the graph of a working size, unless it exists; returns its path."""
        path = self.directory / f"{size[0]}x{size[1]}.onnx"
        if path.exists():
            return path
        if self.module.any_size and size != EXPORT_SIZE:
            onnx_export.resize(self.export(EXPORT_SIZE), size, path)
        else:
            onnx_export.write(self.build_graph(self.recipe.spec(size)), path)
        return path

    def build_graph(self, spec: InputSpec) -> Graph:
        """Build the graph to export."""
        example = torch.zeros(2, *spec.shape, dtype=torch.uint8)
        return Graph(self.module, {"images": example}, self.module.outputs)

    def open_encoder(self, size: Size) -> ExportedEncoder:
        """Export the graph of a working size, unless it exists, and open it."""
        graphs = Graphs(self.directory, {"encoder": self.export(size).name})
        return ExportedEncoder(
            lambda images: graphs.chain(["encoder"], images=images), self.module.outputs
        )


@contextmanager
def open_encoders(recipe: DetectorRecipe) -> Iterator[Encoders]:
    """Build the encoder of a recipe, and open a temporary directory for its graphs."""
    with tempfile.TemporaryDirectory() as directory:
        yield Encoders(encoder.build(recipe.detector.encoder), recipe, Path(directory))


def sample_normal(recipe: DetectorRecipe, data: DetectorData) -> ImageSet:
    """Draw random normal images for the trials, at most `detector.trials`."""
    order = np.random.default_rng(recipe.seed).permutation(len(data.training))
    return data.training.take(np.sort(order[: recipe.detector.trials]))


def select(
    recipe: DetectorRecipe,
    data: DetectorData,
    tried: ImageSet,
    encoders: Encoders,
    accept_weak: bool,
    log: Log,
) -> tuple[Trials, Selection]:
    """Choose a candidate by trials on normal images. Raises WeakDetectorError if it is weak."""
    config, count = recipe.detector, len(data.training)
    largest = recipe.spec(data.sizes[-1])
    progress.begin("decoding", log)
    images = tried.read(largest, log)
    log(f"trials: synthetic anomalies in {len(images)} images")
    search = DetectorSearch(images, largest, config, encoders.open_encoder, recipe.seed)
    trials = search.run(data.sizes, log)
    larger = trials.choice.size != config.sizes[-1]
    advice = detector_advice.give_advice(trials, images, count, larger)
    weak = detector_advice.explain_weakness(trials, recipe.seed)
    if weak and not accept_weak:
        log(detector_advice.format_table(trials, {}))
        raise WeakDetectorError(
            "\n".join([f"{recipe.name} is refused: {weak}", *advice, "--accept-weak publishes it"])
        )
    return trials, draft_manifest.draft_selection(trials, config, weak, advice)


def fit_chosen(
    recipe: DetectorRecipe, data: DetectorData, trials: Trials, encoders: Encoders, log: Log
) -> FittedDetector:
    """Fit the chosen candidate to all normal images."""
    config, choice = recipe.detector, trials.choice
    exported, spec = encoders.open_encoder(choice.size), recipe.spec(choice.size)
    keep_images = fitters.uses_images((*choice.names, choose_map_component(choice.names, config)))

    def encode(images: ImageSet) -> ImageFeatures:
        chunks = np.array_split(np.arange(len(images)), -(-len(images) // CHUNK_IMAGES))
        taken = (images.take(chunk) for chunk in progress.step_through(chunks, log))
        return join([exported.encode(chunk.read(spec, silence), keep_images) for chunk in taken])

    progress.begin("encoding", log)
    log(f"fitting to {len(data.training)} images at {spec.height}x{spec.width}")
    normal = encode(data.training)
    held_out = encode(data.calibration) if data.calibration else None
    progress.begin("fitting", log)
    return fit(choice, normal, held_out, config, recipe.seed, log)


def _export(
    encoders: Encoders, fitted: FittedDetector, spec: InputSpec, data: DetectorData, staging: Path
) -> tuple[Graphs, dict[str, float]]:
    """Write graphs and golden vectors; returns the graphs and their largest differences from torch.

    Raises ParityError if a difference is too large.
    """
    images = data.training.take(np.arange(min(MAX_BATCH_IMAGES, len(data.training))))
    sample = images.read(spec, silence)
    graphs: dict[GraphName, Graph] = {
        "encoder": encoders.build_graph(spec),
        "scorer": _build_scorer_graph(encoders, fitted, sample[:2]),
    }
    shutil.copy(encoders.export((spec.height, spec.width)), staging / DETECTOR_GRAPHS["encoder"])
    onnx_export.write(graphs["scorer"], staging / DETECTOR_GRAPHS["scorer"])
    exported = Graphs(staging, DETECTOR_GRAPHS, MAX_BATCH_IMAGES)
    compared = parity.resize_every_second(np.resize(sample, (MAX_BATCH_IMAGES, *spec.shape)), spec)
    differences = parity.measure(graphs, exported, compared, PARITY_TOLERANCES, MAX_BATCH_IMAGES)
    golden.write(exported, sample, spec, staging / GOLDEN, count=1)
    return exported, differences


@torch.no_grad()
def _build_scorer_graph(encoders: Encoders, fitted: FittedDetector, sample: Images) -> Graph:
    """Build the graph to export; its example is what the encoder makes of the sample."""
    images = torch.from_numpy(sample)
    encoded = zip(encoders.module.outputs, encoders.module(images), strict=True)
    tensors: dict[TensorName, torch.Tensor] = {"images": images, **dict(encoded)}
    inputs = {name: tensors[name] for name in fitted.scorer.inputs}
    return Graph(fitted.scorer, inputs, SCORER_OUTPUTS)


def _log_conclusion(
    trials: Trials,
    selected: Selection,
    calibrated: Calibration,
    metrics: dict[str, float],
    log: Log,
) -> None:
    """Log the results of trials and calibration, and advice."""
    log("")
    log(detector_advice.format_table(trials, detector_advice.select_labelled(metrics)))
    log("")
    log(detector_advice.format_recall(selected.recall))
    log("")
    log(detector_advice.format_calibration(len(calibrated.scores)))
    for sentence in selected.advice:
        log(sentence)
    if selected.weak:
        log(f"warning: published though weak: {selected.weak}")
