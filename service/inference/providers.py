"""Choice of execution providers by device policy and machine; this module uses no device."""

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
    rest: tuple[
        "Provider", ...
    ] = ()  # for the nodes of a graph that this provider does not support


@dataclass(frozen=True)
class Machine:
    """The providers of the installed ONNX Runtime, and the reason if CUDA is unavailable."""

    built_with: frozenset[str]
    cuda_problem: str | None = None


@dataclass(frozen=True)
class GpuOptions:
    """Options of a GPU; options that change the rounding of checked graphs are off by default."""

    tf32: bool = False  # its rounding changes scores, but not their calibration
    cuda_graphs: bool = False
    memory: int | None = None  # maximum bytes of ONNX Runtime's arena for one graph
    tensorrt: bool = False
    tensorrt_cache: Path = Path("tensorrt-cache")  # of engines, which take minutes to build


GPU_DEFAULTS = GpuOptions()
CPU_PROVIDER = Provider(CPU)


def build_cuda_provider(gpu: GpuOptions) -> Provider:
    """Return the CUDA provider with its options."""
    options = {
        "use_tf32": _format_flag(gpu.tf32),
        "enable_cuda_graph": _format_flag(gpu.cuda_graphs),
        "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search repeats for each batch size
        "arena_extend_strategy": "kSameAsRequested",
    }
    if gpu.memory is not None:
        options["gpu_mem_limit"] = str(gpu.memory)
    return Provider(CUDA, tuple(options.items()))


def build_tensorrt_provider(gpu: GpuOptions) -> Provider:
    """Return the TensorRT provider, with CUDA for unsupported nodes."""
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(gpu.tensorrt_cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(gpu.tensorrt_cache),
        "trt_cuda_graph_enable": _format_flag(gpu.cuda_graphs),
    }
    return Provider(TENSORRT, tuple(options.items()), (build_cuda_provider(gpu),))


def _format_flag(on: bool) -> str:
    return "1" if on else "0"


def list_candidates(
    policy: DevicePolicy, machine: Machine, gpu: GpuOptions = GPU_DEFAULTS
) -> list[Provider]:
    """Return the providers to try, fastest first. Raises DeviceError if `cuda` is unavailable."""
    if policy == "cpu":
        return [CPU_PROVIDER]
    problem = machine.cuda_problem
    if CUDA not in machine.built_with:
        problem = (
            "the installed ONNX Runtime is built without CUDA; "
            "install the extra `cuda` in place of `cpu`"
        )
    elif gpu.tensorrt and TENSORRT not in machine.built_with:
        problem = (
            problem
            or "the installed ONNX Runtime is built without TensorRT; start without AE_TENSORRT"
        )
    if policy == "cuda" and problem:
        raise DeviceError(f"device policy cuda: {problem}")
    on_gpu = [build_tensorrt_provider(gpu) if gpu.tensorrt else build_cuda_provider(gpu)]
    if policy == "cuda":
        return on_gpu
    return [CPU_PROVIDER] if problem else [*on_gpu, CPU_PROVIDER]
