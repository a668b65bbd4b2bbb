"""A bundle's graphs, run with ONNX Runtime on the CPU: what is evaluated is what will be served."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from bundle.manifest import GraphName
from bundle.tensors import Tensors

BATCH = 256
RUNTIME_VERSION: str = onnxruntime.__version__  # of either distribution
SCORING: tuple[GraphName, ...] = ("encoder", "decoder", "scorer")


class Graphs:
    """The graphs of a directory by name, each run on the outputs of those before it."""

    def __init__(self, directory: Path, files: Mapping[GraphName, str], batch: int = BATCH) -> None:
        self._batch = batch
        self._sessions: dict[GraphName, onnxruntime.InferenceSession] = {
            name: onnxruntime.InferenceSession(directory / file, providers=["CPUExecutionProvider"])
            for name, file in files.items()
        }

    @property
    def names(self) -> tuple[GraphName, ...]:
        return tuple(self._sessions)

    def outputs(self, name: GraphName) -> list[str]:
        return [output.name for output in self._sessions[name].get_outputs()]

    @property
    def scoring(self) -> tuple[GraphName, ...]:
        """The graphs that make scores of images, in order: a detector of feature maps has no decoder."""
        inputs = {given.name for given in self._sessions["scorer"].get_inputs()}
        return tuple(name for name in SCORING if name != "decoder" or "intensities" in inputs)

    def chain(self, names: Iterable[GraphName], **tensors: npt.NDArray[Any]) -> Tensors:
        """Run the named graphs in turn; gives the tensors with all that the graphs made of them."""
        arrays: Tensors = dict(tensors)
        for name in names:
            session = self._sessions[name]
            outputs = self.outputs(name)
            feeds = {given.name: arrays[given.name] for given in session.get_inputs()}
            arrays.update(zip(outputs, session.run(outputs, feeds), strict=True))
        return arrays

    def chain_in_batches(
        self, names: Iterable[GraphName], keep: Iterable[str], **tensors: npt.NDArray[Any]
    ) -> Tensors:
        """As `chain`, a batch at a time, for many images; gives only the tensors to keep."""
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


RECONSTRUCT: tuple[GraphName, ...] = ("encoder", "decoder")
