"""What loads graphs: ONNX Runtime, on the first provider that really runs."""

import ctypes
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import onnxruntime

from bundle.manifest import GraphName
from service import cores
from service.errors import DeviceError
from service.inference.chain import Chain, DeviceChain, HostChain
from service.inference.providers import (
    CPU_PROVIDER,
    CUDA,
    GPU_DEFAULTS,
    DevicePolicy,
    GpuOptions,
    Machine,
    candidates,
)
from service.inference.session import OnnxSession, Session

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """What loads graphs on the device that the policy asks for."""

    def open(self, path: Path) -> Session:
        """Raises BundleError where the graph is at fault and DeviceError where the device is."""
        ...

    def chain(self, sessions: Mapping[GraphName, Session], max_batch: int | None) -> Chain:
        """The sessions of a model, to be run one after the other, on at most `max_batch` images where that is set."""
        ...


class OnnxEngine:
    """ONNX Runtime on the first provider that really runs."""

    def __init__(
        self,
        policy: DevicePolicy,
        threads: int | None = None,
        gpu: GpuOptions = GPU_DEFAULTS,
        max_batch_size: int = 64,
    ) -> None:
        self._policy, self._gpu, self._max_batch_size = policy, gpu, max_batch_size
        self._threads = threads or cores.available()
        machine = inspect_machine() if policy != "cpu" else Machine(frozenset())
        self.candidates = candidates(policy, machine, gpu)
        if policy == "auto" and machine.cuda_problem:
            logger.warning("device policy auto: using the CPU: %s", machine.cuda_problem)

    def open(self, path: Path) -> Session:
        try:
            return OnnxSession(path, self.candidates[0], self._threads)
        except DeviceError as error:
            on_cpu = OnnxSession(
                path, CPU_PROVIDER, self._threads
            )  # raises BundleError where the graph is at fault
            if CPU_PROVIDER not in self.candidates:
                raise
            logger.warning("device policy %s: %s", self._policy, error)
            return on_cpu

    def chain(self, sessions: Mapping[GraphName, Session], max_batch: int | None = None) -> Chain:
        """On a GPU what the graphs hand on stays there, if all of them run on it."""
        on_gpu = {
            name: each
            for name, each in sessions.items()
            if isinstance(each, OnnxSession) and each.on_gpu
        }
        if len(on_gpu) < len(sessions):
            return HostChain(sessions)
        return DeviceChain(
            on_gpu,
            min(self._max_batch_size, max_batch or self._max_batch_size),
            cuda_graphs=self._gpu.cuda_graphs,
        )


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
        return Machine(
            built_with, f"the CUDA provider cannot be loaded: {error}; install the extra `cuda`"
        )
    return Machine(built_with)
