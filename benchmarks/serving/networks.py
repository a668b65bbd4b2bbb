"""Networks of two sizes to serve; untrained, because speed does not depend on training."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx.compose
import torch

from bundle.manifest import (
    Calibration,
    ErrorMapScale,
    InputSpec,
    ModelManifest,
    Provenance,
    TrainingData,
)
from training.architectures import build
from training.architectures.convolutional import ConvolutionalConfig
from training.export import fp16, golden
from training.export.graph_runner import Graphs
from training.export.onnx_export import export
from training.export.published import GOLDEN, load_newest
from training.pipeline import publish
from training.pipeline.destinations import ModelsDirectory


class Net(NamedTuple):
    """A network, and its input."""

    spec: InputSpec
    architecture: ConvolutionalConfig


NETS = {
    "digits": Net(
        InputSpec(height=28, width=28, channels=1),
        ConvolutionalConfig(widths=(16, 32), blocks=1, latent_dim=32),
    ),
    "photos": Net(
        InputSpec(height=256, width=256, channels=3),
        ConvolutionalConfig(widths=(16, 32, 64, 64), blocks=1, code_channels=8),
    ),
}


def write(name: str, models: Path) -> Path:
    """Write the bundle of a network below `models`, unless it exists.

    Returns its single graph, which the peers serve.
    """
    directory = models / name / "1"
    if not directory.is_dir():
        destination = ModelsDirectory(models)
        with destination.open_staging(name) as staged:
            publish.publish(destination, staged, _write(name, staged))
    return directory / "whole.onnx"


def write_fp16(name: str, models: Path) -> str:
    """Write the network's bundle in fp16 beside it, unless it exists; returns its name."""
    converted = f"{name}-fp16"
    if not (models / converted).is_dir():
        plain = load_newest(models, name)
        with np.load(plain.directory / GOLDEN) as arrays:
            images = arrays["images"]
        destination = ModelsDirectory(models)
        with (
            destination.open_staging(converted) as staged,
            tempfile.TemporaryDirectory() as rounded,
        ):
            graphs, parity = fp16.write(plain, images, staged, Path(rounded))
            golden.write(graphs, images, plain.manifest.input, staged / GOLDEN)
            made = plain.manifest.provenance.model_copy(update={"parity": parity})
            changes = {"name": converted, "precision": "float16", "provenance": made}
            publish.publish(destination, staged, plain.manifest.model_copy(update=changes))
    return converted


def _write(name: str, directory: Path) -> ModelManifest:
    net = NETS[name]
    torch.manual_seed(0)
    model = build(net.architecture, net.spec)
    images = np.random.default_rng(0).integers(0, 256, (100, *net.spec.shape), dtype=np.uint8)
    exported = export(model, net.spec, images[:8], directory)
    graphs = Graphs(directory, exported.files)
    golden.write(graphs, images, net.spec, directory / GOLDEN)
    scores = np.concatenate(
        [graphs.chain(exported.files, images=image[None])["scores"] for image in images]
    )
    onnx.save(_merge_graphs(directory), directory / "whole.onnx")
    return ModelManifest(
        name=name,
        version=1,
        description="An untrained network for benchmarks",
        architecture=model.describe(),
        capabilities=("encode", "decode", "reconstruct", "anomaly-score", "interpolate"),
        input=net.spec,
        latent_dim=model.latent_dim,
        graphs=exported.files,
        golden=GOLDEN,
        calibration=Calibration(
            method="mean squared error of the reconstruction",
            scores=tuple(sorted(scores.tolist())),
            error_map=ErrorMapScale(low=0.0, high=1.0),
        ),
        metrics={},
        training_data=TrainingData(
            name="none", source="random numbers", licence="none", images={}, sha256={}
        ),
        provenance=Provenance(
            created=datetime.now(UTC), recipe={}, libraries={}, parity=exported.parity
        ),
        files=publish.compute_digests(directory),
    )


def _merge_graphs(directory: Path) -> onnx.ModelProto:
    """Merge the graphs of anomaly scoring into one, as an export for scores alone would be."""
    encoder, decoder, scorer = (
        onnx.compose.add_prefix(onnx.load(directory / f"{name}.onnx"), f"{name}.")
        for name in ("encoder", "decoder", "scorer")
    )
    merged = onnx.compose.merge_models(encoder, decoder, [("encoder.latents", "decoder.latents")])
    merged = onnx.compose.merge_models(
        merged, scorer, [("decoder.intensities", "scorer.intensities")], outputs=["scorer.scores"]
    )
    (duplicate,) = (value for value in merged.graph.input if value.name == "scorer.images")
    merged.graph.input.remove(duplicate)
    for images in ("encoder.images", "scorer.images"):
        _rename(merged.graph, images, "images")
    _rename(merged.graph, "scorer.scores", "scores")
    onnx.checker.check_model(merged, full_check=True)
    return merged


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new
