"""Which execution providers to try, from the device policy and what the machine has. Nothing here touches a device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.errors import DeviceError

DevicePolicy = Literal["cuda", "auto", "cpu"]

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime with its options."""

    name: str
    options: tuple[tuple[str, str], ...] = ()
    rest: tuple["Provider", ...] = ()  # take the parts of a graph that this one cannot


@dataclass(frozen=True)
class Machine:
    """What is there: the providers that ONNX Runtime was built with, and why CUDA cannot be loaded, if it cannot."""

    built_with: frozenset[str]
    cuda_problem: str | None = None


@dataclass(frozen=True)
class GpuOptions:
    """How a GPU is used; what rounds otherwise than the graphs were checked with is off unless asked for."""

    tf32: bool = False  # its rounding moves scores away from those that were calibrated
    cuda_graphs: bool = False
    memory: int | None = None  # bytes that ONNX Runtime's arena of a graph may grow to
    tensorrt: bool = False
    tensorrt_cache: Path = Path("tensorrt-cache")  # for the engines, which take minutes to build


GPU_DEFAULTS = GpuOptions()
CPU_PROVIDER = Provider(CPU)


def cuda_provider(gpu: GpuOptions) -> Provider:
    """The CUDA provider with its options."""
    options = {
        "use_tf32": _flag(gpu.tf32),
        "enable_cuda_graph": _flag(gpu.cuda_graphs),
        "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search repeats for every new batch size
        "arena_extend_strategy": "kSameAsRequested",
    }
    if gpu.memory is not None:
        options["gpu_mem_limit"] = str(gpu.memory)
    return Provider(CUDA, tuple(options.items()))


def tensorrt_provider(gpu: GpuOptions) -> Provider:
    """The TensorRT provider, with CUDA's for what it leaves."""
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(gpu.tensorrt_cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(gpu.tensorrt_cache),
        "trt_cuda_graph_enable": _flag(gpu.cuda_graphs),
    }
    return Provider(TENSORRT, tuple(options.items()), (cuda_provider(gpu),))


def _flag(on: bool) -> str:
    return "1" if on else "0"


def candidates(
    policy: DevicePolicy, machine: Machine, gpu: GpuOptions = GPU_DEFAULTS
) -> list[Provider]:
    """The providers to try, best first. Raises DeviceError where the policy is `cuda` and it cannot work."""
    if policy == "cpu":
        return [CPU_PROVIDER]
    problem = machine.cuda_problem
    if CUDA not in machine.built_with:
        problem = "the installed ONNX Runtime is built without CUDA; install the extra `cuda` in place of `cpu`"
    elif gpu.tensorrt and TENSORRT not in machine.built_with:
        problem = (
            problem
            or "the installed ONNX Runtime is built without TensorRT; start without AE_TENSORRT"
        )
    if policy == "cuda" and problem:
        raise DeviceError(f"device policy cuda: {problem}")
    on_gpu = [tensorrt_provider(gpu) if gpu.tensorrt else cuda_provider(gpu)]
    if policy == "cuda":
        return on_gpu
    return [CPU_PROVIDER] if problem else [*on_gpu, CPU_PROVIDER]
