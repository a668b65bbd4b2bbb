"""From a trained network to ONNX graphs, and the proof that ONNX Runtime answers as torch does."""

import gc
import inspect
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.export import Dim

from bundle import imaging
from bundle.manifest import GraphName, InputSpec
from training.architectures import Autoencoder
from training.data.augmentation import to_float
from training.data.dataset import Images
from training.detector.whitening import LatentDistance
from training.errors import ParityError
from training.export.graph_runner import Arrays, Graphs

SMALLEST_IN_HALF = 64  # numbers in a tensor: smaller ones gain nothing
BATCH = 256
PARITY_BATCHES = (1, 2, 7, 64)
FLOAT_TOLERANCE = 1e-5
SCORES = ["errors", "scores", "error_maps"]
OTHER_TOLERANCES: Mapping[str, float] = {
    "reconstructions": 1.0,  # one step of an uint8
    "logits": 1e-4,  # numbers of 10 and more
    "latent_distances": 1e-3,  # logarithms, in which small distances differ more
}
DETECTOR_TOLERANCE = 1e-3  # of scores and maps, in standard deviations of normal images


class EncoderGraph(nn.Module):
    """uint8 (batch, height, width, channels) to latents, and for a variational model log variances."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        intensities = to_float(images)
        posterior = self.model.refine(intensities, self.model.encode(intensities))
        return tuple(output for output in posterior if output is not None)


class DecoderGraph(nn.Module):
    """Latents to uint8 images, to the intensities in 0..1 that these were rounded from, and if asked to the logits."""

    def __init__(self, model: Autoencoder, likelihood: bool) -> None:
        super().__init__()
        self.model = model
        self.likelihood = likelihood

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        raw = self.model.decode_raw(latents)
        intensities = self.model.output(raw)
        # Before the channels go last: where the last dimension is 1, ONNX Runtime takes numbers one by one.
        images = (intensities * 255).round().clamp(0, 255).to(torch.uint8)
        outputs = (images, intensities, raw) if self.likelihood else (images, intensities)
        return tuple(output.permute(0, 2, 3, 1) for output in outputs)


class ClassifierGraph(nn.Module):
    """Latents to the probabilities of the classes."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Tensor:
        return self.model.classify(latents)


class ErrorScorer(nn.Module):
    """Images and intensities to the mean squared error, which is the anomaly score, and its map.

    Where it was given `latents`, it takes those too and gives how far they are from those of the training images.
    """

    def __init__(self, latents: LatentDistance | None = None) -> None:
        super().__init__()
        self.latents = latents

    def forward(self, images: Tensor, intensities: Tensor, latents: Tensor | None = None) -> tuple[Tensor, ...]:
        difference = images.flatten(1).float() / 255 - intensities.flatten(1)  # flat for speed, as in DecoderGraph
        squared = difference * difference
        errors = squared.mean(dim=1)
        maps = squared.view(images.shape)
        scored = errors, errors.clone(), maps.squeeze(3) if images.shape[3] == 1 else maps.mean(dim=3)
        if self.latents is None:
            return scored
        assert latents is not None
        return *scored, self.latents(latents)


@torch.no_grad()
def error_scorer(model: Autoencoder, training: Images) -> ErrorScorer:
    """Of a model and its training images, uint8 (n, height, width, channels)."""
    encoder = EncoderGraph(model.eval())
    parts = (torch.from_numpy(training[start : start + BATCH]) for start in range(0, len(training), BATCH))
    return ErrorScorer(LatentDistance(torch.cat([encoder(part)[0] for part in parts]), len(training)))


@dataclass(frozen=True)
class Graph:
    """A module to export: its example arguments, by the names of the graph's inputs, and its outputs' names."""

    module: nn.Module
    arguments: dict[str, Tensor]
    outputs: Sequence[str]


@dataclass(frozen=True)
class Exported:
    """The file of each graph, in the order in which they can be chained, and the largest difference from torch.

    The difference is relative to the largest number of the output where that is above 1.
    """

    files: dict[GraphName, str]
    parity: dict[str, float]


def export(
    model: Autoencoder,
    spec: InputSpec,
    samples: Images,
    directory: Path,
    likelihood: bool = False,
    scorer: ErrorScorer | None = None,
) -> Exported:
    """Write the graphs to `directory`; with `likelihood` the decoder gives its logits too.

    Without a `scorer` the score is the mean squared error, and the latents are not looked at.

    The model's weights are rounded to float16, in which they are stored; everything is computed in float32.
    `samples` are real images, uint8 (n, height, width, channels); fewer than 64 are taken several times. Raises
    ParityError where ONNX Runtime differs from torch by more than 1e-5 (of logits 1e-4, of latent distances 1e-3), or
    one step of an uint8; of an output with numbers above 1, relative to the largest.
    """
    _round_to_half(model)
    graphs = _graphs(model, spec, torch.from_numpy(samples[:2]), likelihood, scorer or ErrorScorer())
    files = {name: f"{name}.onnx" for name in graphs}
    for name, graph in graphs.items():
        write(graph, directory / files[name])
    compared = with_resized(np.resize(samples, (max(PARITY_BATCHES), *spec.shape)), spec)
    return Exported(files, parity(graphs, Graphs(directory, files), compared))


def _graphs(
    model: Autoencoder, spec: InputSpec, images: Tensor, likelihood: bool, scorer: ErrorScorer
) -> dict[GraphName, Graph]:
    latents = {"latents": torch.zeros(2, model.latent_dim)}
    encoded = ["latents", "log_variances"] if model.variational else ["latents"]
    decoded = ["reconstructions", "intensities", *(["logits"] if likelihood else [])]
    scored = {"images": images, "intensities": torch.zeros(2, *spec.shape)}
    graphs: dict[GraphName, Graph] = {
        "encoder": Graph(EncoderGraph(model), {"images": images}, encoded),
        "decoder": Graph(DecoderGraph(model, likelihood), latents, decoded),
        "scorer": Graph(scorer, scored | latents, [*SCORES, "latent_distances"])
        if scorer.latents
        else Graph(scorer, scored, SCORES),
    }
    if model.head is not None:
        graphs["classifier"] = Graph(ClassifierGraph(model), latents, ["probabilities"])
    return graphs


def _round_to_half(model: Autoencoder) -> None:
    """Round the weights to float16, as the bundle stores them: what is compared and measured is what is served."""
    with torch.no_grad():
        for parameter in model.parameters():  # of a scorer, too, which shares them
            parameter.copy_(parameter.half().float())


def write(graph: Graph, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells at length that torchvision is not there
    with warnings.catch_warnings(), _without_collection():
        warnings.simplefilter("ignore")  # the exporter warns of its own use of deprecated parts of torch
        program = torch.onnx.export(
            graph.module.eval(),
            args=tuple(graph.arguments.values()),
            input_names=list(graph.arguments),
            output_names=graph.outputs,
            dynamic_shapes=_dynamic(graph),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # the dynamo exporter always gives a program
    model = program.model_proto
    _strip(model)
    _store_in_half(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage collection meanwhile: the exporter makes millions of objects and keeps them, so it finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def resize(source: Path, size: tuple[int, int], path: Path) -> None:
    """Write a graph anew for images of this height and width, where its nodes suit any: much faster than `write`."""
    model = onnx.load(source)
    (images,) = model.graph.input
    for dimension, length in zip(images.type.tensor_type.shape.dim[1:3], size, strict=True):
        dimension.dim_value = length
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dimension in output.type.tensor_type.shape.dim[2:]:
            dimension.Clear()
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _dynamic(graph: Graph) -> Any:
    """The batch, the first dimension of every input, is free."""
    free = tuple({0: Dim("batch")} for _ in graph.arguments)
    (kind, *_) = (parameter.kind for parameter in inspect.signature(graph.module.forward).parameters.values())
    return (free,) if kind == inspect.Parameter.VAR_POSITIONAL else free


def _store_in_half(graph: onnx.GraphProto) -> None:
    """Store rounded weights as float16 and cast them back, which ONNX Runtime does once, when it loads the graph."""
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= SMALLEST_IN_HALF and _fits_half(values):
            name, half = tensor.name, f"{tensor.name}.half"
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), half))
            casts.append(onnx.helper.make_node("Cast", [half], [name], name=f"{name}.float", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _fits_half(values: npt.NDArray[np.float32]) -> bool:
    """Whether float16 loses nothing: of the rounded weights it does not, of other constants it may."""
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float16).astype(np.float32), values)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the stack traces and file paths that the exporter writes into the metadata of nodes and values."""
    for holder in (model.graph, *model.functions):
        for item in (holder, *holder.node, *holder.value_info):
            del item.metadata_props[:]
            item.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


def with_resized(samples: Images, spec: InputSpec) -> Images:
    """Every second image enlarged by half and brought back to size, as a request's image may be."""
    images = samples.copy()
    for image in images[1::2]:
        larger = imaging.resize(image, (spec.height * 3 // 2, spec.width * 3 // 2), spec)
        image[:] = imaging.fit(larger, spec)
    return images


def parity(
    graphs: Mapping[GraphName, Graph],
    exported: Graphs,
    images: Images,
    tolerances: Mapping[str, float] = {},
    most: int = max(PARITY_BATCHES),
) -> dict[str, float]:
    """The largest difference of each output from torch, at several batch sizes up to `most`. Raises ParityError."""
    outputs = [name for graph in graphs.values() for name in graph.outputs]
    largest = dict.fromkeys(outputs, 0.0)
    for size in sorted({min(size, most) for size in PARITY_BATCHES}):
        expected: Arrays = {"images": images[:size]}
        for graph in graphs.values():
            expected |= _run_torch(graph, expected)
        found = differences(expected, exported.chain(graphs, images=images[:size]), outputs)
        largest = {
            name: float(np.maximum(largest[name], found[name])) for name in outputs
        }  # keeps NaN, as max does not
    allowed = {**OTHER_TOLERANCES, **tolerances}
    check(largest, {name: allowed.get(name, FLOAT_TOLERANCE) for name in outputs}, "torch")
    return largest


def differences(expected: Arrays, found: Arrays, names: Iterable[str]) -> dict[str, float]:
    """The largest difference of each output; of floats with numbers above 1, relative to the largest."""
    largest = {}
    for name in names:
        reference = expected[name].astype(np.float64)
        scale = 1.0 if expected[name].dtype == np.uint8 else max(1.0, float(np.abs(reference).max()))
        largest[name] = float(np.abs(found[name].astype(np.float64) - reference).max() / scale)
    return largest


def check(found: Mapping[str, float], tolerances: Mapping[str, float], reference: str) -> None:
    """Raise ParityError where a difference is larger than allowed, or is no number."""
    for name, difference in found.items():
        if not difference <= tolerances[name]:
            raise ParityError(
                f"{name} differs from {reference} by {difference:.3g}; at most {tolerances[name]} is allowed"
            )


@torch.no_grad()
def _run_torch(graph: Graph, arrays: Arrays) -> Arrays:
    results = graph.module(*(torch.from_numpy(arrays[name]) for name in graph.arguments))
    results = results if isinstance(results, tuple) else (results,)
    return {name: result.numpy() for name, result in zip(graph.outputs, results, strict=True)}
