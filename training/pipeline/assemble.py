"""A bundle from a trained network."""

import json
from pathlib import Path
from typing import NamedTuple

from bundle.manifest import ModelManifest
from training.architectures import Autoencoder
from training.data import splits
from training.data.dataset import Given, Tell
from training.evaluation import report
from training.evaluation.test_results import Findings
from training.export import calibration, golden, graph_modules, onnx_export
from training.export.graph_runner import Graphs
from training.export.published import GOLDEN, HISTORY, REPORT, Published
from training.pipeline import draft_manifest, publish
from training.pipeline.draft_manifest import capabilities, fit_prior, training_data
from training.recipe import Recipe
from training.trainer.losses import LIKELIHOODS
from training.trainer.tracking import Row


class Made(NamedTuple):
    revision: str | None
    device: str
    minutes: float


def assemble(
    network: Autoencoder,
    history: list[Row],
    made: Made,
    recipe: Recipe,
    given: Given,
    models: Path,
    tell: Tell,
) -> Path:
    with publish.staging(models, recipe.name) as staging:
        tell("exporting, and comparing ONNX Runtime with torch")
        likelihood = network.variational and recipe.loss.kind in LIKELIHOODS
        scorer = graph_modules.error_scorer(network, splits.sample(given.parts.training.images))
        exported = onnx_export.export(network, recipe.input, given.dataset.test.images, staging, likelihood, scorer)
        graphs = Graphs(staging, exported.files)
        tell("calibrating")
        calibrated = calibration.calibrate(graphs, given.parts.calibration.images)
        count = len(calibrated.scores)
        tell(f"calibrated on {count} images: false positive rates from {1 / (count + 1):.2g} on can be asked for")
        prior = fit_prior(graphs, given.parts, recipe, staging)
        golden.write(graphs, given.dataset.test.images, recipe.input, staging / GOLDEN)
        (staging / HISTORY).write_text(json.dumps(history) + "\n", encoding="utf-8")
        tell("evaluating on the test images")
        findings = Findings(graphs, calibrated, given, recipe, network.latent_dim)
        metrics = findings.figures()

        def finish(version: int) -> None:
            manifest = ModelManifest(
                name=recipe.name,
                version=version,
                description=recipe.description,
                architecture=network.describe(),
                capabilities=capabilities(recipe),
                input=recipe.input,
                latent_dim=network.latent_dim,
                graphs=exported.files,
                golden=GOLDEN,
                prior=prior,
                calibration=calibrated,
                classes=given.dataset.classes if recipe.classifier else (),
                metrics=metrics,
                training_data=training_data(recipe, given, count),
                provenance=draft_manifest.provenance(
                    recipe, made.revision, exported.parity, device=made.device, minutes=made.minutes
                ),
                files=publish.digests(staging),
            )
            publish.write_manifest(manifest, staging)
            tell("drawing the report")
            report.write(Published(staging), findings, staging / REPORT)

        return publish.publish(staging, finish)
