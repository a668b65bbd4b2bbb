"""Check that every node of a graph has a kernel in ONNX Runtime's CUDA provider.

ONNX Runtime runs a node without such a kernel on the CPU, with copies there and back, and says so
in its log only. `cuda_kernels.json` lists the kernels of the locked onnxruntime-gpu, as its own
registry names them: `tools/cuda-kernels` writes it, without a GPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from pydantic import TypeAdapter

from training.errors import ExportError

FILE = Path(__file__).with_name("cuda_kernels.json")
# Arithmetic of shapes, which ONNX Runtime runs on the CPU because its results are needed there.
SHAPE_OPERATORS = {"Shape", "Concat"}
Types = dict[str, str]  # by the name of a tensor or a type: "float", "int64", ...


@dataclass(frozen=True)
class Table:
    """Kernels of a version of onnxruntime-gpu, by operator of the default domain.

    A kernel has the first version of the operator, its last or None, and the types that it takes.
    """

    onnxruntime: str
    kernels: dict[str, list[tuple[int, int | None, Types]]]


def check(model: onnx.ModelProto) -> None:
    """Check a graph.

    Raises ExportError, which names the nodes, if a node has no kernel of its version and types, or
    if it computes with shapes and is not listed in SHAPE_OPERATORS.
    """
    if unsupported := list(find_unsupported(model)):
        raise ExportError(
            f"without a CUDA kernel in onnxruntime-gpu {read_table().onnxruntime}: "
            f"{', '.join(unsupported)}: use other operators, or update {FILE.name}"
        )


def find_unsupported(model: onnx.ModelProto) -> Iterator[str]:
    """Find the nodes that CUDA would not run, as "name (operator)".

    Among them are nodes with graphs of their own, such as If, and nodes of other domains.
    """
    (opset,) = (each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = _read_types(graph)
    shapes: set[str] = set()
    constants = {each.name for each in graph.initializer} | {""}
    for node in graph.node:
        inputs = set(node.input) - constants
        if node.op_type == "Shape" or (inputs and inputs <= shapes):
            shapes.update(node.output)
            supported = node.op_type in SHAPE_OPERATORS
        else:
            supported = node.domain in ("", "ai.onnx") and _has_kernel(node, opset, types)
        if not supported:
            yield f"{node.name} ({node.op_type})"


@cache
def read_table() -> Table:
    """Read the kernels of the locked version."""
    return TypeAdapter(Table).validate_json(FILE.read_bytes())


def _read_types(graph: onnx.GraphProto) -> Types:
    """The element types of all tensors of a graph."""
    values = [*graph.input, *graph.output, *graph.value_info]
    numbers = {each.name: each.type.tensor_type.elem_type for each in values}
    numbers |= {each.name: each.data_type for each in graph.initializer}
    return {
        name: onnx.TensorProto.DataType.Name(number).lower() for name, number in numbers.items()
    }


def _has_kernel(node: onnx.NodeProto, opset: int, types: Types) -> bool:
    if any(attribute.HasField("g") for attribute in node.attribute):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset)
    arguments = [*zip(schema.inputs, node.input, strict=False)]
    arguments += zip(schema.outputs, node.output, strict=False)
    # A kernel limits a type by the name of the type or of the argument.
    actual = {
        name: types[value]
        for formal, value in arguments
        if value
        for name in (formal.type_str, formal.name)
    }
    version = schema.since_version
    return any(
        # A kernel without a last version is taken for its first version only.
        (first == version or (last is not None and first <= version <= last))
        and all(actual[name] in limit.split() for name, limit in limits.items() if name in actual)
        for first, last, limits in read_table().kernels.get(node.op_type, [])
    )
