"""Bundles that embed photographs: the pooled feature map of a backbone, not trained further."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from bundle import imaging
from bundle.manifest import InputSpec
from bundle.tensors import Images
from training.architectures.backbones import BACKBONES
from training.detector.encoder import BackboneEncoder
from training.detector.image_features import MAX_BATCH_IMAGES
from training.errors import RecipeError
from training.export import golden, onnx_export, parity
from training.export.graph_modules import Graph
from training.export.graph_runner import Graphs
from training.export.published import GOLDEN
from training.pipeline import draft_manifest, publish
from training.pipeline.destinations import Destination
from training.pipeline.draft_manifest import EMBEDDING_GRAPHS
from training.pipeline.publish import Published
from training.progress import Log
from training.recipe import EmbeddingRecipe


def run(
    recipe: EmbeddingRecipe, models: Destination, log: Log, compatible: bool = False
) -> Published:
    """Export, check and publish; `compatible` is as in `publish.publish`.

    Raises DomainError or OSError.
    """
    spec = recipe.input.spec(recipe.embedding.size)
    revision = draft_manifest.read_git_revision()
    encoder = _build_encoder(recipe)
    models.check()
    with models.open_staging(recipe.name) as staging:
        log("exporting, and comparing ONNX Runtime with torch")
        images = _load_samples(spec)
        graphs, differences = _export(encoder, spec, images, staging)
        golden.write(graphs, images, spec, staging / GOLDEN)
        latent_dim = graphs.chain(["encoder"], images=images[:1])["latents"].shape[1]
        provenance = draft_manifest.record_provenance(
            recipe, revision, differences, backbone=encoder.weights
        )
        files = publish.compute_digests(staging)
        draft = draft_manifest.draft_embedding(recipe, encoder, latent_dim, provenance, files)
        return publish.publish(models, staging, draft, compatible=compatible)


def _export(
    encoder: BackboneEncoder, spec: InputSpec, images: Images, staging: Path
) -> tuple[Graphs, dict[str, float]]:
    """Write the graph; returns it with its largest differences from torch. Raises ParityError."""
    graph = Graph(encoder, {"images": torch.from_numpy(images[:2])}, encoder.outputs)
    onnx_export.write(graph, staging / EMBEDDING_GRAPHS["encoder"])
    exported = Graphs(staging, EMBEDDING_GRAPHS, MAX_BATCH_IMAGES)
    compared = parity.resize_every_second(np.resize(images, (MAX_BATCH_IMAGES, *spec.shape)), spec)
    differences = parity.measure({"encoder": graph}, exported, compared, max_batch=MAX_BATCH_IMAGES)
    return exported, differences


def _build_encoder(recipe: EmbeddingRecipe) -> BackboneEncoder:
    config = recipe.embedding
    backbone = BACKBONES[config.backbone]()
    if config.depth not in backbone.strides:
        raise RecipeError(
            f"embedding.depth: {config.depth} is none of {', '.join(map(str, backbone.strides))}"
        )
    return BackboneEncoder(backbone, config.depth, ()).eval()


def _load_samples(spec: InputSpec) -> Images:
    """Load the sample photographs of scikit-learn."""
    photographs = load_sample_images().images
    return np.stack(
        [imaging.fit(np.asarray(Image.fromarray(photo)), spec) for photo in photographs]
    )
