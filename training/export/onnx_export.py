"""From a trained network to ONNX graphs, and the proof that ONNX Runtime answers as torch does."""

import gc
import inspect
import logging
import warnings
from collections.abc import Iterator
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

from bundle.manifest import GraphName, InputSpec
from bundle.tensors import Images
from training.architectures import Autoencoder, Classifier
from training.export.graph_modules import (
    ClassifierGraph,
    DecoderGraph,
    EncoderGraph,
    ErrorAndDistanceScorer,
    ErrorScorer,
    Graph,
)
from training.export.graph_runner import Graphs
from training.export.parity import PARITY_BATCHES, measure, with_resized

SMALLEST_IN_HALF = 64  # numbers in a tensor: smaller ones gain nothing
SCORES = ["errors", "scores", "error_maps"]


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
    scorer: ErrorScorer | ErrorAndDistanceScorer | None = None,
    classifier: Classifier | None = None,
) -> Exported:
    """Write the graphs of a model to `directory`; with `likelihood` the decoder gives its logits too.

    Without a `scorer` the score is the mean squared error. A `classifier` is one of this model.
    The weights are rounded to float16, in which they are stored; everything is computed in float32.
    `samples` are real images, uint8 (n, height, width, channels); fewer than 64 are taken several times. Raises
    ParityError if ONNX Runtime differs from torch by more than 1e-5 (of logits 1e-4, of latent distances 1e-3), or
    one step of an uint8; of an output with numbers above 1, relative to the largest.
    """
    _round_to_float16(classifier or model)
    graphs = _graphs(
        model, spec, torch.from_numpy(samples[:2]), likelihood, scorer or ErrorScorer()
    )
    if classifier is not None:
        latents = {"latents": torch.zeros(2, model.latent_dim)}
        graphs["classifier"] = Graph(ClassifierGraph(classifier), latents, ["probabilities"])
    files = {name: f"{name}.onnx" for name in graphs}
    for name, graph in graphs.items():
        write(graph, directory / files[name])
    compared = with_resized(np.resize(samples, (max(PARITY_BATCHES), *spec.shape)), spec)
    return Exported(files, measure(graphs, Graphs(directory, files), compared))


def _graphs(
    model: Autoencoder,
    spec: InputSpec,
    images: Tensor,
    likelihood: bool,
    scorer: ErrorScorer | ErrorAndDistanceScorer,
) -> dict[GraphName, Graph]:
    latents = {"latents": torch.zeros(2, model.latent_dim)}
    encoded = ["latents", "log_variances"] if model.variational else ["latents"]
    decoded = ["reconstructions", "intensities", *(["logits"] if likelihood else [])]
    scored = {"images": images, "intensities": torch.zeros(2, *spec.shape)}
    with_distance = isinstance(scorer, ErrorAndDistanceScorer)
    return {
        "encoder": Graph(EncoderGraph(model), {"images": images}, encoded),
        "decoder": Graph(DecoderGraph(model, likelihood), latents, decoded),
        "scorer": Graph(scorer, scored | latents, [*SCORES, "latent_distances"])
        if with_distance
        else Graph(scorer, scored, SCORES),
    }


def _round_to_float16(model: nn.Module) -> None:
    """Round the weights to float16, as the bundle stores them: what is compared and measured is what is served."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())


def write(graph: Graph, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it tells at length that torchvision is not there
    with warnings.catch_warnings(), _without_collection():
        warnings.simplefilter(
            "ignore"
        )  # the exporter warns of its own use of deprecated parts of torch
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
    (kind, *_) = (
        parameter.kind for parameter in inspect.signature(graph.module.forward).parameters.values()
    )
    return (free,) if kind == inspect.Parameter.VAR_POSITIONAL else free


def _store_in_half(graph: onnx.GraphProto) -> None:
    """Store rounded weights as float16 and cast them back, which ONNX Runtime does once, when it loads the graph."""
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= SMALLEST_IN_HALF and _fits_half(values):
            name, half = tensor.name, f"{tensor.name}.half"
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), half))
            casts.append(
                onnx.helper.make_node(
                    "Cast", [half], [name], name=f"{name}.float", to=TensorProto.FLOAT
                )
            )
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
