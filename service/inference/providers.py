"""Which execution providers to try, from the device policy and what the machine has. Nothing here touches a device."""

from dataclasses import dataclass
from typing import Literal

from service.errors import DeviceError

DevicePolicy = Literal["cuda", "auto", "cpu"]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime with its options."""

    name: str
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Machine:
    """What is there: the providers that ONNX Runtime was built with, and why CUDA cannot be loaded, if it cannot."""

    built_with: frozenset[str]
    cuda_problem: str | None = None


CUDA_PROVIDER = Provider(
    CUDA,
    (
        ("use_tf32", "0"),  # its rounding moves scores away from those that were calibrated
        ("cudnn_conv_algo_search", "HEURISTIC"),  # an exhaustive search repeats for every new batch size
        ("arena_extend_strategy", "kSameAsRequested"),
    ),
)
CPU_PROVIDER = Provider(CPU)


def candidates(policy: DevicePolicy, machine: Machine) -> list[Provider]:
    """The providers to try, best first. Raises DeviceError where the policy is `cuda` and it cannot work."""
    if policy == "cpu":
        return [CPU_PROVIDER]
    problem = machine.cuda_problem
    if CUDA not in machine.built_with:
        problem = "the installed ONNX Runtime is built without CUDA; install the extra `cuda` in place of `cpu`"
    if policy == "cuda":
        if problem:
            raise DeviceError(f"device policy cuda: {problem}")
        return [CUDA_PROVIDER]
    return [CPU_PROVIDER] if problem else [CUDA_PROVIDER, CPU_PROVIDER]
