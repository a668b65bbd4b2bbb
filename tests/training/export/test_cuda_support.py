from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from training.errors import ExportError
from training.export import cuda_support, onnx_export
from training.export.graph_modules import Graph

ROOT = Path(__file__).parents[3]


def build_graph(operator: str, element: int, opset: int = 20) -> onnx.ModelProto:
    """A graph of one node."""
    image = helper.make_tensor_value_info("image", element, [2, 2])
    result = helper.make_tensor_value_info("result", element, [2, 2])
    node = helper.make_node(operator, ["image"], ["result"], name="node")
    graph = helper.make_graph([node], "graph", [image], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_the_table_is_of_the_locked_version() -> None:
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"onnxruntime-gpu=={cuda_support.read_table().onnxruntime}" in constraints


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/*/*.onnx")), ids=str)
def test_every_node_of_a_shipped_graph_has_a_kernel(path: Path) -> None:
    assert list(cuda_support.find_unsupported(onnx.load(path))) == []


def test_a_node_without_a_kernel_is_named() -> None:
    with pytest.raises(ExportError, match=r"onnxruntime-gpu [\d.]+: node \(Acosh\): use other"):
        cuda_support.check(build_graph("Acosh", TensorProto.FLOAT))


def test_a_kernel_of_another_type_does_not_count() -> None:
    cuda_support.check(build_graph("Relu", TensorProto.FLOAT))
    with pytest.raises(ExportError, match=r"node \(Relu\)"):
        cuda_support.check(build_graph("Relu", TensorProto.INT32))


def test_a_kernel_without_a_last_version_serves_its_first_version_only() -> None:
    cuda_support.check(build_graph("Elu", TensorProto.FLOAT, opset=20))
    with pytest.raises(ExportError, match=r"node \(Elu\)"):
        cuda_support.check(build_graph("Elu", TensorProto.FLOAT, opset=22))


def test_branches_and_foreign_operators_have_no_kernel() -> None:
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, [1])
    constant = helper.make_node("Constant", [], ["result"], value_floats=[1.0])
    branch = helper.make_graph([constant], "branch", [], [result])
    choice = helper.make_node(
        "If", ["condition"], ["result"], name="choice", then_branch=branch, else_branch=branch
    )
    graph = helper.make_graph([choice], "graph", [condition], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert list(cuda_support.find_unsupported(model)) == ["choice (If)"]
    model = build_graph("Relu", TensorProto.FLOAT)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[0].domain = "com.microsoft"
    assert list(cuda_support.find_unsupported(model)) == ["node (Relu)"]


class DiagonalMean(nn.Module):
    def forward(self, matrices: Tensor) -> Tensor:
        return matrices.diagonal(dim1=1, dim2=2).mean(dim=1)


def test_a_tensor_that_is_computed_from_a_shape_is_not_exported(tmp_path: Path) -> None:
    graph = Graph(DiagonalMean(), {"latents": torch.zeros(2, 3, 3)}, ["scores"])
    with pytest.raises(ExportError, match="EyeLike"):
        onnx_export.write(graph, tmp_path / "graph.onnx")
    assert not list(tmp_path.iterdir())
