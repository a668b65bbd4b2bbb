from pathlib import Path

import pytest

from service.errors import DeviceError
from service.inference.providers import (
    CPU_PROVIDER,
    CUDA,
    GPU_DEFAULTS,
    TENSORRT,
    DevicePolicy,
    GpuOptions,
    Machine,
    Provider,
    build_cuda_provider,
    list_candidates,
)

CUDA_PROVIDER = build_cuda_provider(GPU_DEFAULTS)


GPU = Machine(frozenset({CUDA, "CPUExecutionProvider"}))


NO_DRIVER = Machine(frozenset({CUDA, "CPUExecutionProvider"}), "no NVIDIA driver answers")


CPU_BUILD = Machine(frozenset({"CPUExecutionProvider"}))


@pytest.mark.parametrize(
    ("policy", "machine", "expected"),
    [
        ("cpu", GPU, [CPU_PROVIDER]),
        ("auto", GPU, [CUDA_PROVIDER, CPU_PROVIDER]),
        ("auto", NO_DRIVER, [CPU_PROVIDER]),
        ("auto", CPU_BUILD, [CPU_PROVIDER]),
        ("cuda", GPU, [CUDA_PROVIDER]),
    ],
)
def test_the_policy_and_the_machine_decide_the_providers(
    policy: DevicePolicy, machine: Machine, expected: list[Provider]
) -> None:
    assert list_candidates(policy, machine) == expected


@pytest.mark.parametrize(
    ("machine", "missing"),
    [(NO_DRIVER, "no NVIDIA driver answers"), (CPU_BUILD, "install the extra `cuda`")],
)
def test_policy_cuda_names_the_missing_part(machine: Machine, missing: str) -> None:
    with pytest.raises(DeviceError, match=missing):
        list_candidates("cuda", machine)


def test_the_options_of_a_gpu_reach_its_provider() -> None:
    gpu = GpuOptions(tf32=True, cuda_graphs=True, memory=2**30)
    (provider,) = list_candidates("cuda", GPU, gpu)
    expected = {"use_tf32": "1", "enable_cuda_graph": "1", "gpu_mem_limit": str(2**30)}
    assert expected.items() <= dict(provider.options).items()
    assert {"use_tf32": "0", "enable_cuda_graph": "0"}.items() <= dict(
        CUDA_PROVIDER.options
    ).items()


def test_tensorrt_goes_before_cuda_if_it_is_available(tmp_path: Path) -> None:
    gpu = GpuOptions(tensorrt=True, tensorrt_cache=tmp_path)
    with pytest.raises(DeviceError, match="without TensorRT"):
        list_candidates("cuda", GPU, gpu)
    (provider,) = list_candidates("cuda", Machine(GPU.built_with | {TENSORRT}), gpu)
    assert provider.name == TENSORRT
    assert dict(provider.options)["trt_engine_cache_path"] == str(tmp_path)
    assert provider.rest == (build_cuda_provider(gpu),)
