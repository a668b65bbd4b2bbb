"""A graph, loaded: the narrow protocol that the service knows, and ONNX Runtime behind it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import onnxruntime

from bundle.errors import BundleError
from bundle.tensors import Array, Tensors
from service.errors import DeviceError
from service.inference.providers import CPU, CPU_PROVIDER, Provider

_ELEMENTS: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class Shape(NamedTuple):
    """What a tensor of a graph looks like; the batch, which is free, counts as 1."""

    shape: tuple[int, ...]
    dtype: type[np.generic]


class Session(Protocol):
    """One loaded graph. `run` may be called from one thread at a time."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    provider: str

    def run(self, tensors: Mapping[str, Array], outputs: Sequence[str]) -> Tensors:
        """Feed the graph its inputs from `tensors` and give the outputs that were asked for."""
        ...


class OnnxSession:
    """A session on one provider, proved by a warm-up run: ONNX Runtime falls back to the CPU without a word."""

    def __init__(self, path: Path, provider: Provider, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # The arena of each graph would keep what its largest batch took; without, a batch is up to 6 % slower.
        options.enable_cpu_mem_arena = False
        # Threads that spin while they wait take the cores from image decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        requested = [(each.name, dict(each.options)) for each in (provider, *provider.rest)]
        try:
            session = onnxruntime.InferenceSession(
                path, options, providers=requested, enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this one.
            raise _failure(provider, f"{path.name} cannot be loaded: {error}") from error
        self._session = session
        self.inputs = tuple(given.name for given in session.get_inputs())
        self.outputs = tuple(given.name for given in session.get_outputs())
        self.shapes = {
            given.name: _shape(given) for given in (*session.get_inputs(), *session.get_outputs())
        }
        self._warm_up(path, provider)
        self.provider: str = session.get_providers()[0]
        if self.provider != provider.name:
            raise DeviceError(
                f"{provider.name} was asked for, but {self.provider} answers; ONNX Runtime logged why"
            )

    @property
    def on_gpu(self) -> bool:
        return self.provider != CPU

    def run(self, tensors: Mapping[str, Array], outputs: Sequence[str]) -> Tensors:
        results = self._session.run(list(outputs), {name: tensors[name] for name in self.inputs})
        return dict(zip(outputs, results, strict=True))

    def binding(self) -> onnxruntime.IOBinding:
        """A binding of the graph's tensors to places, which are not set yet."""
        return self._session.io_binding()

    def run_bound(self, binding: onnxruntime.IOBinding, options: onnxruntime.RunOptions) -> None:
        """Run on what is bound."""
        self._session.run_with_iobinding(binding, options)

    def _warm_up(self, path: Path, provider: Provider) -> None:
        try:
            self._session.run(None, {name: np.zeros(*self.shapes[name]) for name in self.inputs})
        except Exception as error:
            raise _failure(provider, f"{path.name} cannot be run: {error}") from error


def _shape(given: onnxruntime.NodeArg) -> Shape:
    return Shape(
        tuple(size if isinstance(size, int) else 1 for size in given.shape), _ELEMENTS[given.type]
    )


def _failure(provider: Provider, text: str) -> DeviceError | BundleError:
    return (
        BundleError(text) if provider == CPU_PROVIDER else DeviceError(f"{provider.name}: {text}")
    )
