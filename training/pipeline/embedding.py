"""Embeddings of photographs: the pooled feature map of a backbone, exported as it is."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from bundle import imaging
from bundle.manifest import InputSpec, ModelManifest, TrainingData, Weights
from bundle.tensors import Images
from training.architectures.backbones import BACKBONES
from training.detector.encoder import BackboneEncoder
from training.detector.scene import BATCH
from training.errors import RecipeError
from training.export import golden, onnx_export, parity
from training.export.graph_modules import Graph
from training.export.graph_runner import Graphs
from training.export.published import GOLDEN
from training.pipeline import draft_manifest, publish
from training.progress import Log
from training.recipe import EmbeddingRecipe

FILE = "encoder.onnx"


def run(recipe: EmbeddingRecipe, models: Path, log: Log) -> Path:
    """Export, check and publish; gives the bundle's directory. Raises TrainingError."""
    config, spec, revision = (
        recipe.embedding,
        recipe.input.spec(recipe.embedding.size),
        draft_manifest.git_revision(),
    )
    backbone = BACKBONES[config.backbone]()
    if config.depth not in backbone.strides:
        raise RecipeError(
            f"embedding.depth: {config.depth} is none of {', '.join(map(str, backbone.strides))}"
        )
    encoder = BackboneEncoder(backbone, config.depth, ()).eval()
    models.mkdir(parents=True, exist_ok=True)
    with publish.staging(models, recipe.name) as staging:
        log("exporting, and comparing ONNX Runtime with torch")
        images = _samples(spec)
        graph = Graph(encoder, {"images": torch.from_numpy(images[:2])}, encoder.outputs)
        onnx_export.write(graph, staging / FILE)
        graphs = Graphs(staging, {"encoder": FILE}, BATCH)
        compared = parity.with_resized(np.resize(images, (BATCH, *spec.shape)), spec)
        found = parity.measure({"encoder": graph}, graphs, compared, most=BATCH)
        golden.write(graphs, images, spec, staging / GOLDEN)
        draft = ModelManifest(
            name=recipe.name,
            version=1,
            description=recipe.description,
            architecture=f"{encoder.describe()}, averaged over positions and L2-normalised",
            capabilities=("encode",),
            input=spec,
            latent_dim=graphs.chain(["encoder"], images=images[:1])["latents"].shape[1],
            graphs={"encoder": FILE},
            golden=GOLDEN,
            max_batch=BATCH,
            metrics={},
            training_data=_training_data(backbone.weights),
            provenance=draft_manifest.provenance(recipe, revision, found, backbone=encoder.weights),
            files=publish.digests(staging),
        )
        return publish.publish(staging, draft)


def _samples(spec: InputSpec) -> Images:
    """Photographs that scikit-learn carries."""
    photographs = load_sample_images().images
    return np.stack([imaging.fit(np.asarray(Image.fromarray(each)), spec) for each in photographs])


def _training_data(weights: Weights) -> TrainingData:
    return TrainingData(
        name=weights.trained_on,
        source=weights.source,
        licence=weights.licence,
        images={},
        sha256={},
    )
