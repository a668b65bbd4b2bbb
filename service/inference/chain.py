"""Chains of the graphs of a model: each takes the outputs of the graphs before it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

import numpy as np
from onnxruntime import IOBinding, OrtValue, RunOptions

from bundle.manifest import GraphName
from bundle.tensors import TensorName, Tensors
from service.inference.providers import CPU
from service.inference.session import OnnxSession, Session


class Chain(ABC):
    """The graphs of a model, which run in order. Only one thread at a time may call `run`.

    `shares` is True if a run may be joined with those of other models after its first graph.
    """

    shares = False

    def __init__(self, sessions: Mapping[GraphName, Session], max_batch: int | None = None) -> None:
        """Chain sessions, which run at most `max_batch` images at once if it is set."""
        self._sessions, self._max_batch = sessions, max_batch

    def run(
        self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[TensorName]
    ) -> Tensors:
        """Run the graphs in order, and return the named outputs.

        The first dimension of tensors is the batch. Raises DeviceLost if a device fails and does
        not recover.
        """
        try:
            return self._run_in_batches(graphs, tensors, outputs)
        except Exception as error:
            for session in self._sessions.values():
                if isinstance(session, OnnxSession):
                    session.check_device(error)
            raise

    def _run_in_batches(
        self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[TensorName]
    ) -> Tensors:
        count, most = len(next(iter(tensors.values()))), self._max_batch
        if most is None or count <= most:
            return self._run(graphs, tensors, outputs)
        results = [
            self._run(
                graphs,
                {name: tensor[start : start + most] for name, tensor in tensors.items()},
                outputs,
            )
            for start in range(0, count, most)
        ]
        return {name: np.concatenate([result[name] for result in results]) for name in outputs}

    @abstractmethod
    def _run(
        self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[TensorName]
    ) -> Tensors: ...

    @abstractmethod
    def warm_up(
        self,
        graphs: Sequence[GraphName],
        inputs: Sequence[TensorName],
        outputs: Sequence[TensorName],
    ) -> None:
        """Prepare these runs, if the first would be slow otherwise."""


# Elements of the inputs, or of the outputs, of one run on the CPU: two photographs of 256x256.
# Feature maps of more would allocate memory in each run, which costs more than a batch gains.
BATCH_ELEMENTS = 2**19


class HostChain(Chain):
    """A chain with tensors in host memory, of any batch size. The CPU splits a large batch."""

    shares = True

    def _run(
        self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[TensorName]
    ) -> Tensors:
        known = dict(tensors)
        for name, selected in select_outputs(self._sessions, graphs, outputs):
            known |= _run_in_parts(self._sessions[name], known, selected)
        return {name: known[name] for name in outputs}

    def warm_up(
        self,
        graphs: Sequence[GraphName],
        inputs: Sequence[TensorName],
        outputs: Sequence[TensorName],
    ) -> None:
        """Do nothing, because the first run of a batch size on the CPU is as fast as the next."""


class DeviceChain(Chain):
    """A chain with tensors in device memory; only the requested outputs are copied to the host.

    Batches are padded with zeros to powers of two up to `max_batch_size`. For each size, all graphs
    share one buffer per tensor, so that serving allocates no memory. With `cuda_graphs`, kernel
    launches are recorded at the first run of a size and replayed later.
    """

    _sessions: Mapping[GraphName, OnnxSession]

    def __init__(
        self,
        sessions: Mapping[GraphName, OnnxSession],
        max_batch_size: int,
        device: str = "cuda",
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__(sessions, max_batch_size)
        self._device = device
        self._cuda_graphs = cuda_graphs
        self.sizes = (
            *takewhile(lambda size: size < max_batch_size, (2**n for n in range(32))),
            max_batch_size,
        )
        self._buffers: dict[int, dict[TensorName, OrtValue]] = {size: {} for size in self.sizes}
        self._bindings: dict[
            tuple[int, GraphName, tuple[TensorName, ...]], tuple[IOBinding, RunOptions]
        ] = {}

    def _run(
        self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[TensorName]
    ) -> Tensors:
        """Run the graphs on the padded batch."""
        count = len(next(iter(tensors.values())))
        size = next(size for size in self.sizes if size >= count)
        buffers = self._buffers[size]
        for name, tensor in tensors.items():
            padded = np.zeros((size, *tensor.shape[1:]), tensor.dtype)
            padded[:count] = tensor
            self._get_buffer(size, name, padded.shape, padded.dtype.type).update_inplace(padded)
        for graph, selected in select_outputs(self._sessions, graphs, outputs):
            binding, run_options = self._bind(size, graph, tuple(selected))
            self._sessions[graph].run_bound(binding, run_options)
        # Copied, because on some devices the array is the buffer, which the next batch overwrites.
        return {name: buffers[name].numpy()[:count].copy() for name in outputs}

    def warm_up(
        self,
        graphs: Sequence[GraphName],
        inputs: Sequence[TensorName],
        outputs: Sequence[TensorName],
    ) -> None:
        """Run every size twice: the first run selects algorithms, the second may be recorded."""
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

    def _get_buffer(
        self, size: int, name: TensorName, shape: Sequence[int], element: type[np.generic]
    ) -> OrtValue:
        """Return the buffer of a tensor, allocated at the first call."""
        buffers = self._buffers[size]
        if name not in buffers:
            buffers[name] = OrtValue.ortvalue_from_shape_and_type(
                list(shape), element, self._device, 0
            )
        return buffers[name]

    def _bind(
        self, size: int, graph: GraphName, outputs: tuple[TensorName, ...]
    ) -> tuple[IOBinding, RunOptions]:
        """Return the buffers that a run reads and writes, and the options of its recording."""
        key = size, graph, outputs
        if key not in self._bindings:
            session, options = self._sessions[graph], RunOptions()
            if self._cuda_graphs:
                options.add_run_config_entry("gpu_graph_id", str(len(self._bindings) + 1))
            binding = session.binding()
            for name in session.inputs:
                binding.bind_ortvalue_input(name, self._buffers[size][name])
            for name in outputs:
                shape, element = session.shapes[name]
                binding.bind_ortvalue_output(
                    name, self._get_buffer(size, name, [size, *shape[1:]], element)
                )
            self._bindings[key] = binding, options
        return self._bindings[key]


def _run_in_parts(session: Session, tensors: Tensors, outputs: Sequence[TensorName]) -> Tensors:
    """Run a graph, on the CPU in equal parts of about `BATCH_ELEMENTS`."""
    inputs = {name: tensors[name] for name in session.inputs}
    count = len(next(iter(inputs.values())))
    read = sum(tensor.size for tensor in inputs.values())
    written = count * sum(math.prod(session.shapes[name].shape[1:]) for name in outputs)
    parts = min(count, -(-max(read, written) // BATCH_ELEMENTS))
    if parts <= 1 or session.provider != CPU:
        return session.run(inputs, outputs)
    split = {name: np.array_split(tensor, parts) for name, tensor in inputs.items()}
    results = [
        session.run({name: each[part] for name, each in split.items()}, outputs)
        for part in range(parts)
    ]
    return {name: np.concatenate([result[name] for result in results]) for name in outputs}


def select_outputs(
    sessions: Mapping[GraphName, Session],
    graphs: Sequence[GraphName],
    outputs: Sequence[TensorName],
) -> Iterator[tuple[GraphName, list[TensorName]]]:
    """Yield each graph with its outputs that later graphs take or that were requested."""
    for position, name in enumerate(graphs):
        later = {tensor for graph in graphs[position + 1 :] for tensor in sessions[graph].inputs}
        yield (
            name,
            [output for output in sessions[name].outputs if output in later or output in outputs],
        )
