"""Sessions of loaded graphs: their protocol, and ONNX Runtime."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import onnxruntime

from bundle.errors import BundleError
from bundle.tensors import TensorName, Tensors, parse_tensor_name
from service.errors import DeviceError, DeviceLost
from service.inference.providers import CPU, CPU_PROVIDER, Provider

logger = logging.getLogger(__name__)

MEASURED_RUNS = 3
_ELEMENTS: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class Shape(NamedTuple):
    """Shape and type of a tensor of a graph; free dimensions, such as the batch, are 1."""

    shape: tuple[int, ...]
    dtype: type[np.generic]


class Session(Protocol):
    """A loaded graph. Several threads may call `run`, as ONNX Runtime allows."""

    inputs: tuple[TensorName, ...]
    outputs: tuple[TensorName, ...]
    shapes: Mapping[TensorName, Shape]
    provider: str

    def run(self, tensors: Tensors, outputs: Sequence[TensorName]) -> Tensors:
        """Run the graph on its inputs among `tensors`, and return the named outputs."""
        ...


class OnnxSession:
    """A session on one provider.

    A warm-up run verifies the provider, because ONNX Runtime falls back to the CPU silently.
    """

    def __init__(self, path: Path, provider: Provider, threads: int) -> None:
        session = _open(path, provider, threads)
        self._session = session
        self.inputs = tuple(_read_name(node, path) for node in session.get_inputs())
        self.outputs = tuple(_read_name(node, path) for node in session.get_outputs())
        nodes = (*session.get_inputs(), *session.get_outputs())
        self.shapes: Mapping[TensorName, Shape] = {
            _read_name(node, path): _read_shape(node, path) for node in nodes
        }
        self._warm_up(path, provider)
        self.provider: str = session.get_providers()[0]
        if self.provider != provider.name:
            raise DeviceError(
                f"{provider.name} is unavailable: {self.provider} runs instead; "
                "the log of ONNX Runtime has the reason"
            )

    @property
    def on_gpu(self) -> bool:
        """True if the graph does not run on the CPU."""
        return self.provider != CPU

    def run(self, tensors: Tensors, outputs: Sequence[TensorName]) -> Tensors:
        """Run the graph as `Session.run` does."""
        results = self._session.run(list(outputs), {name: tensors[name] for name in self.inputs})
        return dict(zip(outputs, results, strict=True))

    def binding(self) -> onnxruntime.IOBinding:
        """Return a binding of the graph's tensors to buffers, without buffers yet."""
        return self._session.io_binding()

    def run_bound(self, binding: onnxruntime.IOBinding, options: onnxruntime.RunOptions) -> None:
        """Run on bound buffers."""
        self._session.run_with_iobinding(binding, options)

    def check_device(self, error: Exception) -> None:
        """Raise DeviceLost if the GPU fails a trial run, too, after the `error` of another run.

        CUDA fails every call of a process after a fault in a kernel. Other errors, such as too
        little memory, concern one run.
        """
        if self.on_gpu:
            try:
                self._try()
            except Exception as second:
                logger.critical("%s failed, and a trial run, too: %s", self.provider, second)
                raise DeviceLost(
                    "the device failed and does not recover; retry after the service has restarted"
                ) from error

    def measure(self) -> float:
        """Return the seconds of a run with one image of zeros, of the fastest of a few."""
        seconds = []
        for _ in range(MEASURED_RUNS):
            began = time.perf_counter()
            self._try()
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    def _try(self) -> None:
        self._session.run(None, {name: np.zeros(*self.shapes[name]) for name in self.inputs})

    def _warm_up(self, path: Path, provider: Provider) -> None:
        try:
            self._try()
        except Exception as error:
            raise _build_error(provider, f"{path.name} cannot be run: {error}") from error


def _open(path: Path, provider: Provider, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # An arena keeps the memory of the largest batch; without, batches are up to 6 % slower.
    options.enable_cpu_mem_arena = False
    # Threads that spin while they wait take cores from image decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A bundle is self-contained: nothing is read from files that its manifest does not list.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    requested = [(each.name, dict(each.options)) for each in (provider, *provider.rest)]
    try:
        return onnxruntime.InferenceSession(path, options, providers=requested, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one.
        raise _build_error(provider, f"{path.name} cannot be loaded: {error}") from error


def _read_name(node: onnxruntime.NodeArg, path: Path) -> TensorName:
    try:
        return parse_tensor_name(node.name)
    except ValueError as error:
        raise BundleError(f"{path.name}: {error}; publish the bundle again") from None


def _read_shape(node: onnxruntime.NodeArg, path: Path) -> Shape:
    if node.type not in _ELEMENTS:
        supported = ", ".join(_ELEMENTS)
        raise BundleError(
            f"{path.name}: {node.name} is a {node.type}; supported are {supported}; "
            "publish the bundle again"
        )
    shape = tuple(size if isinstance(size, int) else 1 for size in node.shape)
    return Shape(shape, _ELEMENTS[node.type])


def _build_error(provider: Provider, text: str) -> DeviceError | BundleError:
    return (
        BundleError(text) if provider == CPU_PROVIDER else DeviceError(f"{provider.name}: {text}")
    )
