"""Engines that load graphs: their protocol, and ONNX Runtime."""

import ctypes
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

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
    list_candidates,
)
from service.inference.session import OnnxSession, Session

logger = logging.getLogger(__name__)

# Sessions with threads of their own; the others run in the thread that calls them. A process with
# hundreds of models would have hundreds of threads, and shared ones of ONNX Runtime always spin.
MAX_THREADED_SESSIONS = 8
# Shortest run of one image that threads are for; shorter ones take longer with threads.
MIN_THREADED_SECONDS = 0.002


class Engine(Protocol):
    """An engine that loads graphs on the device of the policy.

    `provider` is the execution provider that it tries first.
    """

    provider: str

    def open(self, path: Path) -> Session:
        """Load a graph.

        Raises BundleError if the graph is invalid, DeviceError if the device fails.
        """
        ...

    def chain(self, sessions: Mapping[GraphName, Session], max_batch: int | None) -> Chain:
        """Chain the sessions of a model, for at most `max_batch` images, if it is set."""
        ...


class OnnxEngine:
    """ONNX Runtime on the first provider that runs a graph."""

    def __init__(
        self,
        policy: DevicePolicy,
        threads: int | None = None,
        gpu: GpuOptions = GPU_DEFAULTS,
        max_batch_size: int = 64,
        machine: Machine | None = None,
    ) -> None:
        """Choose the providers of the policy on the machine, which is inspected unless given."""
        self._policy, self._gpu, self._max_batch_size = policy, gpu, max_batch_size
        self._threads = threads or cores.count()
        self._threaded: WeakSet[OnnxSession] = WeakSet()
        if machine is None:
            machine = inspect_machine() if policy != "cpu" else Machine(frozenset())
        self.candidates = list_candidates(policy, machine, gpu)
        self.provider = self.candidates[0].name
        if policy == "auto" and machine.cuda_problem:
            logger.warning("device policy auto: using the CPU: %s", machine.cuda_problem)

    def open(self, path: Path) -> Session:
        """Load a graph; with the policy `auto`, on the CPU if the GPU fails."""
        session = self._open(path, threads=1)
        if not self._gains_from_threads(session):
            return session
        del session  # before its graph is loaded again
        threaded = self._open(path, self._threads)
        self._threaded.add(threaded)
        return threaded

    def _gains_from_threads(self, session: OnnxSession) -> bool:
        free = self._threads > 1 and len(self._threaded) < MAX_THREADED_SESSIONS
        return free and not session.on_gpu and session.measure() >= MIN_THREADED_SECONDS

    def _open(self, path: Path, threads: int) -> OnnxSession:
        try:
            return OnnxSession(path, self.candidates[0], threads)
        except DeviceError as error:
            # Raises BundleError if the graph is invalid, and not the device.
            on_cpu = OnnxSession(path, CPU_PROVIDER, threads)
            if CPU_PROVIDER not in self.candidates:
                raise
            logger.warning("device policy %s: %s", self._policy, error)
            return on_cpu

    def chain(self, sessions: Mapping[GraphName, Session], max_batch: int | None = None) -> Chain:
        """Chain sessions, in device memory if all of them run on a GPU."""
        on_gpu = {
            name: each
            for name, each in sessions.items()
            if isinstance(each, OnnxSession) and each.on_gpu
        }
        if len(on_gpu) < len(sessions):
            return HostChain(sessions, max_batch)
        return DeviceChain(
            on_gpu,
            min(self._max_batch_size, max_batch or self._max_batch_size),
            cuda_graphs=self._gpu.cuda_graphs,
        )


def inspect_machine() -> Machine:
    """Return the providers of ONNX Runtime, and the error of loading the CUDA provider.

    The provider is loaded here, because ONNX Runtime does not report its missing libraries.
    """
    built_with = frozenset(onnxruntime.get_available_providers())
    if CUDA not in built_with:
        return Machine(built_with)
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return Machine(built_with, f"the NVIDIA driver cannot be loaded: {error}")
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
