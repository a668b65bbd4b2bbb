"""From a trained network to a published bundle."""

import json
from dataclasses import dataclass
from pathlib import Path

from training.architectures import Autoencoder, Classifier
from training.data import splits
from training.data.dataset import RunImages
from training.evaluation import report
from training.evaluation.autoencoder_results import AutoencoderResults
from training.export import calibration, golden, graph_modules, onnx_export
from training.export.graph_runner import Graphs
from training.export.published import GOLDEN, HISTORY, REPORT, Published
from training.pipeline import draft_manifest, plan, publish
from training.progress import Log
from training.recipe import Recipe
from training.trainer.tracking import Row


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that was trained, a row of its history for each epoch, and how it was trained."""

    autoencoder: Autoencoder
    classifier: Classifier | None
    history: list[Row]
    git_revision: str | None
    device: str
    minutes: float


def assemble(
    trained: TrainedNetwork, recipe: Recipe, images: RunImages, models: Path, log: Log
) -> Path:
    """Export, check, calibrate, evaluate, draw the report and publish; gives the bundle's directory.

    Raises TrainingError or OSError; then nothing is published.
    """
    network, test = trained.autoencoder, images.dataset.test.images
    evaluation = plan.evaluation(recipe)
    with publish.staging(models, recipe.name) as staging:
        log("exporting, and comparing ONNX Runtime with torch")
        scorer = graph_modules.build_scorer(network, splits.sample(images.splits.training.images))
        exported = onnx_export.export(
            network,
            recipe.input,
            test,
            staging,
            evaluation.likelihood is not None,
            scorer,
            trained.classifier,
        )
        graphs = Graphs(staging, exported.files)
        log("calibrating")
        calibrated = calibration.calibrate(graphs, images.splits.calibration.images)
        log(calibration.summary_line(calibrated))
        prior = draft_manifest.fit_prior(graphs, images.splits.training.images, recipe, staging)
        golden.write(graphs, test, recipe.input, staging / GOLDEN)
        (staging / HISTORY).write_text(json.dumps(trained.history) + "\n", encoding="utf-8")
        log("evaluating on the test images")
        results = AutoencoderResults(graphs, calibrated, images, evaluation, network.latent_dim)
        draft = draft_manifest.of_network(
            recipe,
            images,
            architecture=network.describe(),
            latent_dim=network.latent_dim,
            graphs=exported.files,
            golden=GOLDEN,
            prior=prior,
            calibration=calibrated,
            metrics=results.metrics(),
            provenance=draft_manifest.provenance(
                recipe,
                trained.git_revision,
                exported.parity,
                device=trained.device,
                minutes=trained.minutes,
            ),
            files=publish.digests(staging),
        )

        def draw(model: Published) -> None:
            log("drawing the report")
            report.write(model, results, model.directory / REPORT)

        return publish.publish(staging, draft, draw)
