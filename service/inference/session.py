"""A graph, loaded: the narrow protocol that the service knows, and ONNX Runtime behind it."""

import ctypes
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from service import cores
from service.errors import BundleError, DeviceError
from service.inference.providers import CPU_PROVIDER, CUDA, DevicePolicy, Machine, Provider, candidates

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

logger = logging.getLogger(__name__)

_ELEMENTS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class Session(Protocol):
    """One loaded graph. `run` may be called from one thread at a time."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    provider: str

    def run(self, tensors: Mapping[str, Array], outputs: Sequence[str]) -> Tensors:
        """Feed the graph its inputs from `tensors` and give the outputs that were asked for."""
        ...


class Engine(Protocol):
    """What loads graphs on the device that the policy asks for."""

    def open(self, path: Path) -> Session:
        """Raises BundleError where the graph is at fault and DeviceError where the device is."""
        ...


class OnnxEngine:
    """ONNX Runtime on the first provider that really runs."""

    def __init__(self, policy: DevicePolicy, threads: int | None = None) -> None:
        self._policy = policy
        self._threads = threads or cores.available()
        machine = inspect_machine() if policy != "cpu" else Machine(frozenset())
        self.candidates = candidates(policy, machine)
        if policy == "auto" and machine.cuda_problem:
            logger.warning("device policy auto: using the CPU: %s", machine.cuda_problem)

    def open(self, path: Path) -> Session:
        try:
            return OnnxSession(path, self.candidates[0], self._threads)
        except DeviceError as error:
            on_cpu = OnnxSession(path, CPU_PROVIDER, self._threads)  # raises BundleError where the graph is at fault
            if CPU_PROVIDER not in self.candidates:
                raise
            logger.warning("device policy %s: %s", self._policy, error)
            return on_cpu


class OnnxSession:
    """A session on one provider, proved by a warm-up run: ONNX Runtime falls back to the CPU without a word."""

    def __init__(self, path: Path, provider: Provider, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores from image decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        requested = [(provider.name, dict(provider.options))]
        try:
            session = onnxruntime.InferenceSession(path, options, providers=requested, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this one.
            raise _failure(provider, f"{path.name} cannot be loaded: {error}") from error
        self._session = session
        self.inputs = tuple(given.name for given in session.get_inputs())
        self.outputs = tuple(given.name for given in session.get_outputs())
        self._warm_up(path, provider)
        self.provider = session.get_providers()[0]
        if self.provider != provider.name:
            raise DeviceError(f"{provider.name} was asked for, but {self.provider} answers; ONNX Runtime logged why")

    def run(self, tensors: Mapping[str, Array], outputs: Sequence[str]) -> Tensors:
        results = self._session.run(list(outputs), {name: tensors[name] for name in self.inputs})
        return dict(zip(outputs, results, strict=True))

    def _warm_up(self, path: Path, provider: Provider) -> None:
        try:
            self._session.run(None, {given.name: _zeros(given) for given in self._session.get_inputs()})
        except Exception as error:
            raise _failure(provider, f"{path.name} cannot be run: {error}") from error


def _zeros(given: onnxruntime.NodeArg) -> Array:
    """A batch of one for an input of a graph, whose named dimensions are free."""
    return np.zeros([size if isinstance(size, int) else 1 for size in given.shape], _ELEMENTS[given.type])


def _failure(provider: Provider, text: str) -> DeviceError | BundleError:
    return DeviceError(f"{provider.name}: {text}") if provider.name == CUDA else BundleError(text)


def inspect_machine() -> Machine:
    """Look what ONNX Runtime was built with, and load the CUDA provider by hand to learn what it lacks."""
    built_with = frozenset(onnxruntime.get_available_providers())
    if CUDA not in built_with:
        return Machine(built_with)
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return Machine(built_with, f"no NVIDIA driver answers: {error}")
    onnxruntime.preload_dlls()
    libraries = Path(onnxruntime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(libraries / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(libraries / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return Machine(built_with, f"the CUDA provider cannot be loaded: {error}; install the extra `cuda`")
    return Machine(built_with)
