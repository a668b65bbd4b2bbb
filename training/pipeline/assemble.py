"""Export and evaluation of a trained network, and publication of its bundle."""

import json
from dataclasses import dataclass
from pathlib import Path

from bundle.manifest import EXAMPLES
from training.architectures import Autoencoder, Classifier
from training.data import splits
from training.data.dataset import RunImages
from training.evaluation import report
from training.evaluation.autoencoder_results import AutoencoderResults
from training.export import calibration, examples, golden, graph_modules, onnx_export
from training.export.graph_runner import Graphs
from training.export.published import GOLDEN, HISTORY, REPORT, PublishedBundle
from training.pipeline import draft_manifest, plan, publish
from training.pipeline.destinations import Destination
from training.pipeline.publish import Published
from training.progress import Log
from training.recipe import Recipe
from training.trainer.tracking import EpochRow


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, its history, a row for each epoch, and its provenance."""

    autoencoder: Autoencoder
    classifier: Classifier | None
    history: list[EpochRow]
    git_revision: str | None
    device: str
    minutes: float


def assemble(
    trained: TrainedNetwork,
    recipe: Recipe,
    images: RunImages,
    models: Destination,
    log: Log,
    compatible: bool = False,
) -> Published:
    """Export, check, calibrate, evaluate, draw the report and publish.

    `compatible` is as in `publish.publish`. Raises DomainError or OSError; then nothing is
    published.
    """
    network, evaluation = trained.autoencoder, plan.plan_evaluation(recipe)
    with models.open_staging(recipe.name) as staging:
        log("exporting, and comparing ONNX Runtime with torch")
        exported = _export(trained, recipe, images, staging, evaluation.likelihood is not None)
        graphs = Graphs(staging, exported.files)
        log("calibrating")
        calibrated = calibration.calibrate(graphs, images.splits.calibration.images)
        log(calibration.format_summary(calibrated))
        prior = draft_manifest.fit_prior(graphs, images.splits.training.images, recipe, staging)
        golden.write(graphs, images.dataset.test.images, recipe.input, staging / GOLDEN)
        (staging / HISTORY).write_text(json.dumps(trained.history) + "\n", encoding="utf-8")
        if not recipe.data.own_images:  # the user's own are not for everyone who may use the model
            dataset = images.dataset
            examples.write_images(dataset.test, dataset.classes, staging / EXAMPLES)
        log("evaluating on the test images")
        results = AutoencoderResults(graphs, calibrated, images, evaluation, network.latent_dim)
        provenance = draft_manifest.record_provenance(
            recipe,
            trained.git_revision,
            exported.parity,
            device=trained.device,
            minutes=trained.minutes,
        )
        files = publish.compute_digests(staging)
        draft = draft_manifest.draft_network(
            recipe, network, exported.files, prior, results, provenance, files
        )

        def draw(model: PublishedBundle) -> None:
            log("drawing the report")
            report.write(model, results, model.directory / REPORT)

        return publish.publish(models, staging, draft, draw, compatible)


def _export(
    trained: TrainedNetwork, recipe: Recipe, images: RunImages, staging: Path, likelihood: bool
) -> onnx_export.ExportedGraphs:
    network = trained.autoencoder
    scorer = graph_modules.build_scorer(network, splits.sample(images.splits.training.images))
    test = images.dataset.test.images
    return onnx_export.export(
        network, recipe.input, test, staging, likelihood, scorer, trained.classifier
    )
