"""Conversion of a bundle's graphs to fp16, and its numerical differences.

On a CPU, ONNX Runtime computes an fp16 graph in float32 if it can. So the differences are
measured on graphs that compute in float32 and round every result to fp16, as a GPU does.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import ModelProto, TensorProto, shape_inference
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from bundle.tensors import Images
from training.export import cuda_support, parity
from training.export.graph_runner import Graphs
from training.export.published import PublishedBundle

# Float16 has 11 bits: a rounding changes a result by up to 0.0005 of itself. A network rounds about
# ten times.
TOLERANCES = {
    "reconstructions": 3.0,
    "intensities": 0.01,
    "error_maps": 0.02,
    "latent_distances": 0.01,
    "probabilities": 0.01,
}
OTHER_TOLERANCE = 0.002
SAMPLE_IMAGES = 1000
MAX_FLOAT16 = np.float32(np.finfo(np.float16).max)
FLOAT32_GRAPH = "scorer"  # is not converted, because its squares are too small for fp16


def write(
    published: PublishedBundle,
    samples: Images,
    directory: Path,
    rounded: Path,
    tolerance: float = OTHER_TOLERANCE,
) -> tuple[Graphs, dict[str, float]]:
    """Write the graphs of a bundle in fp16 to `directory`, under the same names.

    Returns float32 graphs that round as fp16 graphs do, written to `rounded`. Returns the largest
    difference of each output from the original graphs, too. The differences are on `samples`, uint8
    (n, height, width, channels), and relative to the output's largest number if it is above 1.
    Raises ParityError if a difference is above its bound, which is `tolerance` for most outputs.
    """
    files = published.manifest.graphs
    for name, file in files.items():
        model = onnx.load(published.directory / file)
        _restore_weights(model.graph)
        onnx.save(model if name == FLOAT32_GRAPH else _convert(model), directory / file)
        onnx.save(model if name == FLOAT32_GRAPH else _add_rounding(model), rounded / file)
    graphs = Graphs(rounded, files)
    spec, names = published.manifest.input, published.graphs.names
    images = parity.resize_every_second(np.resize(samples, (SAMPLE_IMAGES, *spec.shape)), spec)
    outputs = [
        name for name in published.graphs.chain(names, images=images[:1]) if name != "images"
    ]
    expected = published.graphs.chain_in_batches(names, outputs, images=images)
    actual = graphs.chain_in_batches(names, outputs, images=images)
    differences = parity.find_differences(expected, actual, outputs)
    tolerances = {name: TOLERANCES.get(name, tolerance) for name in differences}
    parity.check(differences, tolerances, "float32")
    # A CPU computes the fp16 graphs more exactly, but an invalid conversion still shows there.
    few = {"images": images[:64]}
    converted = Graphs(directory, files).chain(names, **few)
    parity.check(
        parity.find_differences(graphs.chain(names, **few), converted, outputs),
        {name: 2 * value for name, value in tolerances.items()},
        "its rounded float32 graphs",
    )
    return graphs, differences


def _restore_weights(graph: onnx.GraphProto) -> None:
    """Turn weights that `export` stored in fp16 back into float32 initializers."""
    users = Counter(name for node in graph.node for name in node.input)
    casts = {node.input[0]: node for node in graph.node if node.op_type == "Cast"}
    for tensor in graph.initializer:
        if (
            tensor.data_type == TensorProto.FLOAT16
            and tensor.name in casts
            and users[tensor.name] == 1
        ):
            node = casts[tensor.name]
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, node.output[0]))
            graph.node.remove(node)


def _convert(model: ModelProto) -> ModelProto:
    """The same graph in fp16, with inputs and outputs of their original types."""
    copy = ModelProto()
    copy.CopyFrom(model)
    with warnings.catch_warnings():
        # The converter warns of each constant that becomes zero or is rounded.
        warnings.simplefilter("ignore")
        converted: ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    OnnxModel(converted).topological_sort()  # the converter puts casts of inputs behind their users
    cuda_support.check(converted)
    onnx.checker.check_model(converted, full_check=True)
    return converted


def _add_rounding(model: ModelProto) -> ModelProto:
    """The same graph with every float32 input, constant and result rounded to fp16."""
    inferred = shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    inputs = {
        value.name: f"{value.name}.rounded" for value in model.graph.input if value.name in floats
    }
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = [cast for name, rounded in inputs.items() for cast in _make_casts(name, rounded)]
    nodes += [each for node in model.graph.node for each in _round_outputs(node, floats, inputs)]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            # The converter clips too large constants, too.
            clipped = np.clip(onnx.numpy_helper.to_array(tensor), -MAX_FLOAT16, MAX_FLOAT16)
            values = clipped.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return copy


def _round_outputs(
    node: onnx.NodeProto, floats: set[str], inputs: Mapping[str, str]
) -> Iterator[onnx.NodeProto]:
    """The node, on rounded inputs, then casts that round its float32 outputs."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for index, name in enumerate(node.input):
        copy.input[index] = inputs.get(name, name)
    yield copy
    for index, name in enumerate(node.output):
        if name in floats:
            copy.output[index] = f"{name}.exact"
            yield from _make_casts(f"{name}.exact", name)


def _make_casts(exact: str, rounded: str) -> Iterator[onnx.NodeProto]:
    yield onnx.helper.make_node("Cast", [exact], [f"{exact}.half"], to=TensorProto.FLOAT16)
    yield onnx.helper.make_node("Cast", [f"{exact}.half"], [rounded], to=TensorProto.FLOAT)
