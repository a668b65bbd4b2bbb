"""A bundle's graphs in half precision, and what that changes.

On a CPU, ONNX Runtime computes a float16 graph in float32 wherever it can. What half precision costs is therefore
measured on graphs that compute in float32 and round every result to float16, as a GPU does.
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
from training.export import parity
from training.export.graph_runner import Graphs
from training.export.published import Published

# Float16 has 11 bits: a result is rounded by up to 0.0005 of itself, some ten times on its way through a network.
TOLERANCES = {
    "reconstructions": 3.0,
    "intensities": 0.01,
    "error_maps": 0.02,
    "latent_distances": 0.01,
    "probabilities": 0.01,
}
TOLERANCE = 0.002  # of all other outputs
SAMPLES = 1000
LARGEST = np.float32(np.finfo(np.float16).max)
KEPT = "scorer"  # it sums squares that are too small for float16


def write(
    published: Published,
    samples: Images,
    directory: Path,
    rounded: Path,
    tolerance: float = TOLERANCE,
) -> tuple[Graphs, dict[str, float]]:
    """Write the graphs of a bundle in half precision to `directory`, under the names that they have.

    Gives graphs that round as those do, written to `rounded`, and the largest difference of each output from the
    float32 graphs' on `samples`, uint8 (n, height, width, channels); relative to the output's largest number where that
    is above 1. Raises ParityError where one is above its bound, which for most is `tolerance`.
    """
    files = published.manifest.graphs
    for name, file in files.items():
        model = onnx.load(published.directory / file)
        _restore_weights(model.graph)
        onnx.save(model if name == KEPT else _in_half(model), directory / file)
        onnx.save(model if name == KEPT else _rounding(model), rounded / file)
    graphs = Graphs(rounded, files)
    spec, names = published.manifest.input, published.graphs.names
    images = parity.with_resized(np.resize(samples, (SAMPLES, *spec.shape)), spec)
    outputs = [
        name for name in published.graphs.chain(names, images=images[:1]) if name != "images"
    ]
    expected = published.graphs.chain_in_batches(names, outputs, images=images)
    found = parity.differences(
        expected, graphs.chain_in_batches(names, outputs, images=images), outputs
    )
    parity.check(found, {name: TOLERANCES.get(name, tolerance) for name in found}, "float32")
    # The graphs themselves, too: a CPU computes them more exactly, but what is wrong with them shows.
    few = {"images": images[:64]}
    real = parity.differences(
        graphs.chain(names, **few), Graphs(directory, files).chain(names, **few), outputs
    )
    parity.check(
        real,
        {name: 2 * TOLERANCES.get(name, tolerance) for name in real},
        "its rounded float32 graphs",
    )
    return graphs, found


def _restore_weights(graph: onnx.GraphProto) -> None:
    """Undo `export`'s storing of weights as float16: each is a float32 initializer again."""
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


def _in_half(model: ModelProto) -> ModelProto:
    """The same graph, computing in float16 between inputs and outputs of the types that they had."""
    copy = ModelProto()
    copy.CopyFrom(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of each constant that becomes zero or is rounded
        half: ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    OnnxModel(half).topological_sort()  # the casts of the inputs stand behind their users
    onnx.checker.check_model(half, full_check=True)
    return half


def _rounding(model: ModelProto) -> ModelProto:
    """The same graph with every float32 input, constant and result rounded to float16."""
    inferred = shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    given = {
        value.name: f"{value.name}.given" for value in model.graph.input if value.name in floats
    }
    rounding = ModelProto()
    rounding.CopyFrom(model)
    nodes = [cast for name, rounded in given.items() for cast in _casts(name, rounded)]
    nodes += [each for node in model.graph.node for each in _rounded(node, floats, given)]
    del rounding.graph.node[:]
    rounding.graph.node.extend(nodes)
    for tensor in rounding.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            # As the converter does: what is too large becomes the largest number.
            values = (
                np.clip(onnx.numpy_helper.to_array(tensor), -LARGEST, LARGEST)
                .astype(np.float16)
                .astype(np.float32)
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return rounding


def _rounded(
    node: onnx.NodeProto, floats: set[str], given: Mapping[str, str]
) -> Iterator[onnx.NodeProto]:
    """The node, on rounded inputs, then casts that round its float32 outputs."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for place, name in enumerate(node.input):
        copy.input[place] = given.get(name, name)
    yield copy
    for place, name in enumerate(node.output):
        if name in floats:
            copy.output[place] = f"{name}.exact"
            yield from _casts(f"{name}.exact", name)


def _casts(exact: str, rounded: str) -> Iterator[onnx.NodeProto]:
    yield onnx.helper.make_node("Cast", [exact], [f"{exact}.half"], to=TensorProto.FLOAT16)
    yield onnx.helper.make_node("Cast", [f"{exact}.half"], [rounded], to=TensorProto.FLOAT)
