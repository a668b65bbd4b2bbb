"""Export of a trained network to ONNX graphs, compared with torch."""

import gc
import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
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
from bundle.tensors import Images, TensorName
from training.architectures import Autoencoder, Classifier
from training.export import cuda_support
from training.export.graph_modules import (
    ClassifierGraph,
    DecoderGraph,
    EncoderGraph,
    ErrorAndDistanceScorer,
    ErrorScorer,
    Graph,
)
from training.export.graph_runner import Graphs
from training.export.parity import PARITY_BATCH_SIZES, measure, resize_every_second

MIN_FP16_ELEMENTS = 64  # in a tensor: smaller ones save nothing
Names = Sequence[TensorName]
Arguments = dict[TensorName, Tensor]

SCORES: Names = ["errors", "scores", "error_maps"]


@dataclass(frozen=True)
class ExportedGraphs:
    """Files of the graphs, in the order of the chain, and the largest difference of each output.

    The difference is between ONNX Runtime and torch. It is relative to the largest number of the
    output if that is above 1.
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
) -> ExportedGraphs:
    """Write the graphs of a model to `directory`; with `likelihood` the decoder has logits, too.

    Without a `scorer` the score is the mean squared error. A `classifier` must be of this model.
    The weights are rounded to fp16 and stored so; everything is computed in float32. `samples`
    are real images, uint8 (n, height, width, channels); fewer than 64 are repeated.

    Raises ParityError if ONNX Runtime differs from torch by more than 1e-5. The bound is 1e-4 for
    logits, 1e-3 for latent distances and one step for uint8. Differences of an output with numbers
    above 1 are relative to the largest.
    """
    _round_to_fp16(classifier or model)
    images = torch.from_numpy(samples[:2])
    graphs = _build_graphs(model, spec, images, likelihood, scorer or ErrorScorer())
    if classifier is not None:
        latents: Arguments = {"latents": torch.zeros(2, model.latent_dim)}
        graphs["classifier"] = Graph(ClassifierGraph(classifier), latents, ["probabilities"])
    files = {name: f"{name}.onnx" for name in graphs}
    for name, graph in graphs.items():
        write(graph, directory / files[name])
    repeated = np.resize(samples, (max(PARITY_BATCH_SIZES), *spec.shape))
    compared = resize_every_second(repeated, spec)
    return ExportedGraphs(files, measure(graphs, Graphs(directory, files), compared))


def _build_graphs(
    model: Autoencoder,
    spec: InputSpec,
    images: Tensor,
    likelihood: bool,
    scorer: ErrorScorer | ErrorAndDistanceScorer,
) -> dict[GraphName, Graph]:
    latents: Arguments = {"latents": torch.zeros(2, model.latent_dim)}
    encoded: Names = ["latents", "log_variances"] if model.variational else ["latents"]
    decoded: Names = ["reconstructions", "intensities"]
    if likelihood:
        decoded = [*decoded, "logits"]
    scored: Arguments = {"images": images, "intensities": torch.zeros(2, *spec.shape)}
    scores = SCORES
    if isinstance(scorer, ErrorAndDistanceScorer):
        scored, scores = scored | latents, [*SCORES, "latent_distances"]
    return {
        "encoder": Graph(EncoderGraph(model), {"images": images}, encoded),
        "decoder": Graph(DecoderGraph(model, likelihood), latents, decoded),
        "scorer": Graph(scorer, scored, scores),
    }


def _round_to_fp16(model: nn.Module) -> None:
    """Round the weights to fp16, because the bundle stores them so."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())


def write(graph: Graph, path: Path) -> None:
    """Export a graph to a file, with a free batch size and weights stored in fp16.

    Raises ExportError if a node would run on the CPU of a GPU machine.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    with warnings.catch_warnings(), _disable_garbage_collection():
        warnings.simplefilter("ignore")  # the exporter uses deprecated parts of torch
        program = torch.onnx.export(
            graph.module.eval(),
            args=tuple(graph.arguments.values()),
            input_names=list(graph.arguments),
            output_names=graph.outputs,
            dynamic_shapes=_find_dynamic_shapes(graph),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # the dynamo exporter always returns a program
    model = program.model_proto
    _strip(model)
    _store_as_fp16(model.graph)
    cuda_support.check(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@contextmanager
def _disable_garbage_collection() -> Iterator[None]:
    """Pause garbage collection, because the exporter keeps its millions of objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def resize(source: Path, size: tuple[int, int], path: Path) -> None:
    """Write a graph for images of another (height, width), much faster than `write`.

    The nodes of the graph must not depend on the size.
    """
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


def _find_dynamic_shapes(graph: Graph) -> Any:
    """Dynamic shapes in which the batch, the first dimension of every input, is free."""
    free = tuple({0: Dim("batch")} for _ in graph.arguments)
    (kind, *_) = (
        parameter.kind for parameter in inspect.signature(graph.module.forward).parameters.values()
    )
    return (free,) if kind == inspect.Parameter.VAR_POSITIONAL else free


def _store_as_fp16(graph: onnx.GraphProto) -> None:
    """Store rounded weights in fp16, with casts that ONNX Runtime runs once, at load."""
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        large = values.dtype == np.float32 and values.size >= MIN_FP16_ELEMENTS
        if large and _is_exact_in_fp16(values):
            name, stored = tensor.name, f"{tensor.name}.half"
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
            casts.append(
                onnx.helper.make_node(
                    "Cast", [stored], [name], name=f"{name}.float", to=TensorProto.FLOAT
                )
            )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _is_exact_in_fp16(values: npt.NDArray[np.float32]) -> bool:
    """True for the rounded weights; false for constants that fp16 would change."""
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float16).astype(np.float32), values)


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and file paths, which the exporter writes into the metadata."""
    for holder in (model.graph, *model.functions):
        for item in (holder, *holder.node, *holder.value_info):
            del item.metadata_props[:]
            item.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
