"""The graphs of a model, run one after the other: each takes what those before it gave."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

import numpy as np
from onnxruntime import IOBinding, OrtValue, RunOptions

from bundle.manifest import GraphName
from bundle.tensors import Tensors
from service.inference.providers import CPU
from service.inference.session import OnnxSession, Session


class Chain(ABC):
    """`run` may be called from one thread at a time."""

    @abstractmethod
    def run(self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run the graphs in turn on tensors that have the batch in their first dimension; give the named outputs."""

    @abstractmethod
    def warm_up(
        self, graphs: Sequence[GraphName], inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        """Prepare for these runs, as far as the first one would else be slow."""


# Elements of the inputs that a graph on the CPU runs on at once: two photographs of 256x256 for an encoder. The feature
# maps of more take memory from the system anew in each run, which costs more than a larger batch gains.
BATCH_ELEMENTS = 2**19


class HostChain(Chain):
    """Keeps tensors in the host's memory, in arrays of any batch size. On the CPU a large batch runs in parts."""

    def __init__(self, sessions: Mapping[GraphName, Session]) -> None:
        self._sessions = sessions

    def run(self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[str]) -> Tensors:
        known = dict(tensors)
        for name, wanted in _wanted(self._sessions, graphs, outputs):
            known |= _run_in_parts(self._sessions[name], known, wanted)
        return {name: known[name] for name in outputs}

    def warm_up(
        self, graphs: Sequence[GraphName], inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        """Nothing: a session on the CPU runs the first batch of a size as fast as the next."""


class DeviceChain(Chain):
    """What the graphs hand on stays in the device's memory; only what was asked for comes back.

    Batches are padded with zeros to one of a few sizes, powers of two up to `max_batch_size`. For each size every
    tensor has one place, at which all graphs read and write it: nothing is allocated while serving, and with
    `cuda_graphs` the launches that were recorded at the first run of a size are replayed.
    """

    def __init__(
        self,
        sessions: Mapping[GraphName, OnnxSession],
        max_batch_size: int,
        device: str = "cuda",
        cuda_graphs: bool = False,
    ) -> None:
        self._sessions = sessions
        self._device = device
        self._cuda_graphs = cuda_graphs
        self.sizes = (
            *takewhile(lambda size: size < max_batch_size, (2**n for n in range(32))),
            max_batch_size,
        )
        self._places: dict[int, dict[str, OrtValue]] = {size: {} for size in self.sizes}
        self._bindings: dict[
            tuple[int, GraphName, tuple[str, ...]], tuple[IOBinding, RunOptions]
        ] = {}

    def run(self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[str]) -> Tensors:
        count = len(next(iter(tensors.values())))
        size = next(size for size in self.sizes if size >= count)
        places = self._places[size]
        for name, tensor in tensors.items():
            padded = np.zeros((size, *tensor.shape[1:]), tensor.dtype)
            padded[:count] = tensor
            self._place(size, name, padded.shape, padded.dtype.type).update_inplace(padded)
        for name, wanted in _wanted(self._sessions, graphs, outputs):
            binding, run_options = self._bound(size, name, tuple(wanted))
            self._sessions[name].run_bound(binding, run_options)
        # A copy, for on some devices the array is the place itself, which the next batch overwrites.
        return {name: places[name].numpy()[:count].copy() for name in outputs}

    def warm_up(
        self, graphs: Sequence[GraphName], inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        """Run every size twice: the first run finds algorithms, and the second is recorded where that was asked for."""
        shapes = {
            name: shape for graph in graphs for name, shape in self._sessions[graph].shapes.items()
        }
        for size in self.sizes:
            zeros = {
                name: np.zeros([size, *shapes[name].shape[1:]], shapes[name].dtype)
                for name in inputs
            }
            for _ in range(2):
                self.run(graphs, zeros, outputs)

    def _place(
        self, size: int, name: str, shape: Sequence[int], element: type[np.generic]
    ) -> OrtValue:
        """Where a tensor lies; made when it is first asked for."""
        places = self._places[size]
        if name not in places:
            places[name] = OrtValue.ortvalue_from_shape_and_type(
                list(shape), element, self._device, 0
            )
        return places[name]

    def _bound(
        self, size: int, graph: GraphName, outputs: tuple[str, ...]
    ) -> tuple[IOBinding, RunOptions]:
        """Where a run reads and writes, and the options under which it is recorded."""
        key = size, graph, outputs
        if key not in self._bindings:
            session, options = self._sessions[graph], RunOptions()
            if self._cuda_graphs:
                options.add_run_config_entry("gpu_graph_id", str(len(self._bindings) + 1))
            binding = session.binding()
            for name in session.inputs:
                binding.bind_ortvalue_input(name, self._places[size][name])
            for name in outputs:
                shape, element = session.shapes[name]
                binding.bind_ortvalue_output(
                    name, self._place(size, name, [size, *shape[1:]], element)
                )
            self._bindings[key] = binding, options
        return self._bindings[key]


def _run_in_parts(session: Session, tensors: Tensors, outputs: Sequence[str]) -> Tensors:
    """Run a graph, on the CPU in even parts of about `BATCH_ELEMENTS`."""
    given = {name: tensors[name] for name in session.inputs}
    count = len(next(iter(given.values())))
    parts = min(count, -(-sum(tensor.size for tensor in given.values()) // BATCH_ELEMENTS))
    if parts <= 1 or session.provider != CPU:
        return session.run(given, outputs)
    split = {name: np.array_split(tensor, parts) for name, tensor in given.items()}
    found = [
        session.run({name: each[part] for name, each in split.items()}, outputs)
        for part in range(parts)
    ]
    return {name: np.concatenate([each[name] for each in found]) for name in outputs}


def _wanted(
    sessions: Mapping[GraphName, Session], graphs: Sequence[GraphName], outputs: Sequence[str]
) -> Iterator[tuple[GraphName, list[str]]]:
    """Each graph, and of its outputs those that later graphs take or that were asked for."""
    for position, name in enumerate(graphs):
        later = {given for graph in graphs[position + 1 :] for given in sessions[graph].inputs}
        yield (
            name,
            [output for output in sessions[name].outputs if output in later or output in outputs],
        )
