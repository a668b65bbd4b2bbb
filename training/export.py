"""From a trained network to ONNX graphs, and the proof that ONNX Runtime answers as torch does."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from service import imaging
from service.manifest import GraphName, InputSpec
from training.architectures import Autoencoder
from training.data import Images
from training.errors import ParityError
from training.graphs import Arrays, Graphs
from training.loop import to_float

FILES: dict[GraphName, str] = {"encoder": "encoder.onnx", "decoder": "decoder.onnx", "scorer": "scorer.onnx"}
PARITY_BATCHES = (1, 2, 7, 64)
FLOAT_TOLERANCE = 1e-5
UINT8_TOLERANCE = 1


class EncoderGraph(nn.Module):
    """uint8 (batch, height, width, channels) to latents, and for a variational model log variances."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        posterior = self.model.encode(to_float(images))
        return tuple(output for output in posterior if output is not None)


class DecoderGraph(nn.Module):
    """Latents to uint8 images, and to the intensities in 0..1 that these were rounded from."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        intensities = self.model.decode(latents).permute(0, 2, 3, 1)
        return (intensities * 255).round().clamp(0, 255).to(torch.uint8), intensities


class ScorerGraph(nn.Module):
    """Images and intensities to the mean squared error, the anomaly score and its map."""

    def forward(self, images: Tensor, intensities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        squared = (images.float() / 255 - intensities).square()
        errors = squared.mean(dim=(1, 2, 3))
        return errors, errors.clone(), squared.mean(dim=3)


@dataclass(frozen=True)
class _Graph:
    """A module to export: its example arguments, by the names of the graph's inputs, and its outputs' names."""

    module: nn.Module
    arguments: dict[str, Tensor]
    outputs: list[str]


def export(model: Autoencoder, spec: InputSpec, samples: Images, directory: Path) -> dict[str, float]:
    """Write the graphs to `directory`; gives the largest difference from torch of each output.

    `samples` are real images, uint8 (at least 64, height, width, channels). Raises ParityError where ONNX Runtime
    differs from torch by more than 1e-5, or one step of an uint8.
    """
    images = torch.from_numpy(samples[:2])
    encoder = EncoderGraph(model)
    encoded = ["latents", "log_variances"][: len(encoder(images))]
    graphs: dict[GraphName, _Graph] = {
        "encoder": _Graph(encoder, {"images": images}, encoded),
        "decoder": _Graph(
            DecoderGraph(model), {"latents": torch.zeros(2, model.latent_dim)}, ["reconstructions", "intensities"]
        ),
        "scorer": _Graph(
            ScorerGraph(),
            {"images": images, "intensities": torch.zeros(2, *spec.shape)},
            ["errors", "scores", "error_maps"],
        ),
    }
    for name, graph in graphs.items():
        _write(graph, directory / FILES[name])
    return _parity(graphs, Graphs(directory, FILES), _with_resized(samples[: max(PARITY_BATCHES)], spec))


def _write(graph: _Graph, path: Path) -> None:
    batch = Dim("batch")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells at length that torchvision is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own use of deprecated parts of torch
        program = torch.onnx.export(
            graph.module.eval(),
            kwargs=graph.arguments,
            input_names=list(graph.arguments),
            output_names=graph.outputs,
            dynamic_shapes={name: {0: batch} for name in graph.arguments},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # the dynamo exporter always gives a program
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the stack traces and file paths that the exporter writes into the metadata of nodes and values."""
    for holder in (model.graph, *model.functions):
        for item in (holder, *holder.node, *holder.value_info):
            del item.metadata_props[:]
            item.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


def _with_resized(samples: Images, spec: InputSpec) -> Images:
    """Every second image enlarged by half and brought back to size, as a request's image may be."""
    images = samples.copy()
    for image in images[1::2]:
        larger = imaging.resize(image, (spec.height * 3 // 2, spec.width * 3 // 2), spec)
        image[:] = imaging.fit(larger, spec)
    return images


def _parity(graphs: Mapping[GraphName, _Graph], exported: Graphs, images: Images) -> dict[str, float]:
    largest = {name: 0.0 for graph in graphs.values() for name in graph.outputs}
    for size in PARITY_BATCHES:
        expected: Arrays = {"images": images[:size]}
        for graph in graphs.values():
            expected |= _run_torch(graph, expected)
        found = exported.chain(graphs, images=images[:size])
        for name in largest:
            difference = np.abs(found[name].astype(np.float64) - expected[name].astype(np.float64)).max()
            largest[name] = float(np.maximum(largest[name], difference))  # which keeps NaN, as max does not
    for name, difference in largest.items():
        tolerance = UINT8_TOLERANCE if name == "reconstructions" else FLOAT_TOLERANCE
        if not difference <= tolerance:
            raise ParityError(f"{name} differs from torch by {difference:.3g}; at most {tolerance} is allowed")
    return largest


@torch.no_grad()
def _run_torch(graph: _Graph, arrays: Arrays) -> Arrays:
    results = graph.module(*(torch.from_numpy(arrays[name]) for name in graph.arguments))
    return {name: result.numpy() for name, result in zip(graph.outputs, results, strict=True)}
