"""Runner of a bundle's graphs with ONNX Runtime on the CPU, so that served graphs are measured."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from bundle.manifest import GraphName
from bundle.tensors import TensorName, Tensors, parse_tensor_name

BATCH_IMAGES = 256  # at most, in a run of the graphs
RUNTIME_VERSION: str = onnxruntime.__version__  # of the CPU or the CUDA distribution
RECONSTRUCTION_GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder")
SCORING_GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder", "scorer")


class Graphs:
    """The graphs of a directory by name; each runs on the outputs of the graphs before it."""

    def __init__(
        self, directory: Path, files: Mapping[GraphName, str], batch: int = BATCH_IMAGES
    ) -> None:
        self._batch = batch
        self._sessions: dict[GraphName, onnxruntime.InferenceSession] = {
            name: onnxruntime.InferenceSession(directory / file, providers=["CPUExecutionProvider"])
            for name, file in files.items()
        }

    @property
    def names(self) -> tuple[GraphName, ...]:
        """The names of the graphs, in the order of the chain."""
        return tuple(self._sessions)

    def outputs(self, name: GraphName) -> list[TensorName]:
        """The names of a graph's outputs."""
        return [parse_tensor_name(node.name) for node in self._sessions[name].get_outputs()]

    @property
    def scoring(self) -> tuple[GraphName, ...]:
        """The graphs from images to scores, in order; a detector of feature maps has no decoder."""
        inputs = {value.name for value in self._sessions["scorer"].get_inputs()}
        needs_decoder = "intensities" in inputs
        return tuple(name for name in SCORING_GRAPHS if name != "decoder" or needs_decoder)

    def chain(self, names: Iterable[GraphName], **tensors: npt.NDArray[Any]) -> Tensors:
        """Run the named graphs in order; returns the tensors and all outputs."""
        arrays: Tensors = {parse_tensor_name(name): array for name, array in tensors.items()}
        for name in names:
            session = self._sessions[name]
            outputs = self.outputs(name)
            inputs = [parse_tensor_name(node.name) for node in session.get_inputs()]
            feeds = {name: arrays[name] for name in inputs}
            arrays.update(zip(outputs, session.run(outputs, feeds), strict=True))
        return arrays

    def chain_in_batches(
        self, names: Iterable[GraphName], keep: Iterable[TensorName], **tensors: npt.NDArray[Any]
    ) -> Tensors:
        """Run the graphs as `chain` does, in batches; returns only the tensors to keep."""
        names, keep = list(names), list(keep)
        count = len(next(iter(tensors.values())))
        batches = [
            self.chain(
                names,
                **{name: tensor[start : start + self._batch] for name, tensor in tensors.items()},
            )
            for start in range(0, count, self._batch)
        ]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in keep}
