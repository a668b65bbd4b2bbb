"""From a recipe and photographs to a published detector."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bundle.manifest import (
    Calibration,
    GraphName,
    InputSpec,
    ModelManifest,
    Selection,
    TrainingData,
)
from bundle.tensors import Images
from training import progress
from training.config import Size
from training.data.dataset import described
from training.data.image_set import DetectorData, ImageSet
from training.detector import encoder, fitters
from training.detector.fit import Fitted, fit, map_of
from training.detector.scene import BATCH, SceneReader, Scenes, join
from training.detector.scorer import SCORES
from training.detector.synthetic_anomalies import KINDS
from training.detector.trials import OF_EACH_KIND, TrialRun, Trials, stage_of
from training.errors import WeakDetectorError
from training.evaluation import detector_advice, detector_report
from training.evaluation.detector_results import DetectorResults
from training.export import calibration, golden, onnx_export, parity
from training.export.graph_modules import Graph
from training.export.graph_runner import Graphs
from training.export.published import GOLDEN, REPORT, Published
from training.pipeline import draft_manifest, load_data, publish
from training.progress import Log, Stages, silence
from training.recipe import DetectorRecipe

ENCODER, SCORER = "encoder.onnx", "scorer.onnx"
EXPORTED: Size = (256, 256)  # the working size whose encoder those of others are made of
CHUNK = (
    64  # photographs that are decoded and encoded at once: memory does not grow with their pixels
)
PARITY_TOLERANCES = dict.fromkeys(("scores", "error_maps"), parity.DETECTOR_TOLERANCE)


def run(
    recipe: DetectorRecipe, directory: Path | None, models: Path, accept_weak: bool, log: Log
) -> Path:
    """Choose, fit, calibrate, export, check, evaluate, draw the report and publish; gives the bundle's directory.

    Raises TrainingError or OSError; then nothing is published. WeakDetectorError is raised where the trials went too
    badly, unless `accept_weak`.
    """
    revision, started = draft_manifest.git_revision(), time.monotonic()
    data = load_data.load_detector(recipe, directory, log)
    models.mkdir(
        parents=True, exist_ok=True
    )  # an unwritable directory ends the run before the work, not after it
    with (
        Stages(log, _estimate_seconds(recipe, data)) as log,
        publish.staging(models, recipe.name) as staging,
        open_encoders(recipe) as encoders,
    ):
        tried = sample_normal(recipe, data)
        trials, selected = select(recipe, data, tried, encoders, accept_weak, log)
        spec = recipe.spec(trials.choice.size)
        fitted = fit_chosen(recipe, data, trials, encoders, log)
        progress.begin("exporting", log)
        log("exporting, and comparing ONNX Runtime with torch")
        sample = data.training.take(np.arange(min(BATCH, len(data.training)))).read(spec, silence)
        differences = _export(encoders, fitted, spec, sample, staging)
        graphs = Graphs(staging, {"encoder": ENCODER, "scorer": SCORER}, BATCH)
        method = fitted.scorer.describe() + ("" if data.calibration else calibration.CROSS_FITTED)
        calibrated = calibration.summarise(
            fitted.scores, fitted.maps, method, fitted.latent_distances
        )
        golden.write(graphs, sample, spec, staging / GOLDEN, count=1)
        results = DetectorResults(graphs, calibrated, spec, data, recipe.input, recipe.seed, trials)
        metrics = results.metrics()
        draft = ModelManifest(
            name=recipe.name,
            version=1,
            description=recipe.description,
            architecture=f"{encoders.module.describe()}; {fitted.scorer.describe()}",
            capabilities=("encode", "anomaly-score"),
            input=spec,
            latent_dim=graphs.chain(["encoder"], images=sample[:1])["latents"].shape[1],
            graphs={"encoder": ENCODER, "scorer": SCORER},
            golden=GOLDEN,
            calibration=calibrated,
            max_batch=BATCH,
            selection=selected,
            metrics=metrics,
            training_data=_training_data(recipe, data, len(calibrated.scores)),
            provenance=draft_manifest.provenance(
                recipe,
                revision,
                differences,
                device=f"CPU, {torch.get_num_threads()} threads",
                minutes=round((time.monotonic() - started) / 60, 2),
                backbone=encoders.module.weights,
            ),
            files=publish.digests(staging),
        )

        def draw(model: Published) -> None:
            progress.begin("report", log)
            log("drawing the report")
            detector_report.write(model, results, model.directory / REPORT, tried)

        published = publish.publish(staging, draft, draw)
    _log_conclusion(trials, selected, calibrated, metrics, log)
    return published


def _estimate_seconds(recipe: DetectorRecipe, data: DetectorData) -> dict[str, float]:
    """About how long each stage takes, on two cores and with photographs."""
    normal = min(recipe.detector.trials, len(data.training))
    tried = normal + OF_EACH_KIND * len(KINDS)
    areas = {size: size[0] * size[1] / 256**2 for size in data.sizes}
    trials = {stage_of(size): 0.01 * tried * areas[size] for size in data.sizes}
    trials[stage_of(data.sizes[0])] += 5 + 0.02 * tried * areas[data.sizes[0]]
    encoding = 0.02 * len(data.training) * areas[data.sizes[0]]
    fitted = {"encoding": encoding, "fitting": 1 + 2 * encoding, "exporting": 2, "report": 4}
    return {"decoding": 0.01 * normal} | trials | fitted


class Encoders(NamedTuple):
    """The encoder, and the directory of its graphs, one for each working size that was asked for."""

    module: encoder.Encoder
    recipe: DetectorRecipe
    directory: Path

    def file(self, size: Size) -> Path:
        path = self.directory / f"{size[0]}x{size[1]}.onnx"
        if path.exists():
            return path
        if self.module.any_size and size != EXPORTED:
            onnx_export.resize(self.file(EXPORTED), size, path)
        else:
            onnx_export.write(self.graph(self.recipe.spec(size)), path)
        return path

    def graph(self, spec: InputSpec) -> Graph:
        return Graph(
            self.module,
            {"images": torch.zeros(2, *spec.shape, dtype=torch.uint8)},
            self.module.outputs,
        )

    def reader(self, size: Size) -> SceneReader:
        graphs = Graphs(self.directory, {"encoder": self.file(size).name})
        return SceneReader(
            lambda images: graphs.chain(["encoder"], images=images), self.module.outputs
        )


@contextmanager
def open_encoders(recipe: DetectorRecipe) -> Iterator[Encoders]:
    with tempfile.TemporaryDirectory() as directory:
        yield Encoders(encoder.build(recipe.detector.encoder), recipe, Path(directory))


def sample_normal(recipe: DetectorRecipe, data: DetectorData) -> ImageSet:
    """Random normal images for the trials, at most as many as the recipe says."""
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
    """Choose by trials on some normal images. Raises WeakDetectorError."""
    config, count = recipe.detector, len(data.training)
    largest = recipe.spec(data.sizes[-1])
    progress.begin("decoding", log)
    images = tried.read(largest, log)
    log(f"trials: synthetic anomalies in {len(images)} images")
    trials = TrialRun(images, largest, config, encoders.reader, recipe.seed).run(data.sizes, log)
    advice = detector_advice.advice(trials, images, count, trials.choice.size != config.sizes[-1])
    weak = detector_advice.weakness(trials, recipe.seed)
    if weak and not accept_weak:
        log(detector_advice.table(trials, {}))
        raise WeakDetectorError(
            "\n".join([f"{recipe.name} is refused: {weak}", *advice, "--accept-weak publishes it"])
        )
    selected = Selection(
        score=trials.choice.names,
        map=(map_of(trials.choice.names, config),),
        compared={label: round(area, 4) for label, area in trials.steps.items()},
        synthetic=detector_advice.synthetic(trials),
        recall=detector_advice.recall(trials),
        weak=weak,
        advice=advice,
    )
    return trials, selected


def fit_chosen(
    recipe: DetectorRecipe, data: DetectorData, trials: Trials, encoders: Encoders, log: Log
) -> Fitted:
    config, reader, spec = (
        recipe.detector,
        encoders.reader(trials.choice.size),
        recipe.spec(trials.choice.size),
    )
    keep_images = fitters.take_images((*trials.choice.names, map_of(trials.choice.names, config)))

    def scenes(images: ImageSet) -> Scenes:
        parts = np.array_split(np.arange(len(images)), -(-len(images) // CHUNK))
        taken = (images.take(part) for part in progress.step_through(parts, log))
        return join([reader.read(each.read(spec, silence), keep_images) for each in taken])

    progress.begin("encoding", log)
    log(f"fitting to {len(data.training)} images at {spec.height}x{spec.width}")
    normal = scenes(data.training)
    held_out = scenes(data.calibration) if data.calibration else None
    progress.begin("fitting", log)
    return fit(trials.choice, normal, held_out, config, recipe.seed, log)


def _export(
    encoders: Encoders, fitted: Fitted, spec: InputSpec, sample: Images, staging: Path
) -> dict[str, float]:
    """Write both graphs; gives their largest differences from torch. Raises ParityError."""
    shutil.copy(encoders.file((spec.height, spec.width)), staging / ENCODER)
    encoder_graph = encoders.graph(spec)
    with torch.no_grad():
        images = torch.from_numpy(sample[:2])
        tensors = {
            "images": images,
            **dict(zip(encoder_graph.outputs, encoders.module(images), strict=True)),
        }
    scorer_graph = Graph(
        fitted.scorer, {name: tensors[name] for name in fitted.scorer.inputs}, SCORES
    )
    onnx_export.write(scorer_graph, staging / SCORER)
    compared = parity.with_resized(np.resize(sample, (BATCH, *spec.shape)), spec)
    exported = Graphs(staging, {"encoder": ENCODER, "scorer": SCORER})
    graphs: dict[GraphName, Graph] = {"encoder": encoder_graph, "scorer": scorer_graph}
    return parity.measure(graphs, exported, compared, PARITY_TOLERANCES, BATCH)


def _training_data(recipe: DetectorRecipe, data: DetectorData, calibrated: int) -> TrainingData:
    counts = {"training": len(data.training), "calibration": calibrated, "test": len(data.test)}
    return described(recipe.data, data.sha256, counts)


def _log_conclusion(
    trials: Trials,
    selected: Selection,
    calibrated: Calibration,
    metrics: dict[str, float],
    log: Log,
) -> None:
    """Log what the trials and the calibration mean."""
    log("")
    log(detector_advice.table(trials, detector_advice.labelled(metrics)))
    log("")
    log(detector_advice.recall_table(selected.recall))
    log("")
    log(detector_advice.calibration_line(len(calibrated.scores)))
    for sentence in selected.advice:
        log(sentence)
    if selected.weak:
        log(f"warning: published though weak: {selected.weak}")
