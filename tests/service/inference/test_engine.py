import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import DeviceError
from service.inference.engine import OnnxEngine
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
from service.inference.session import OnnxSession
from tests.bundles import write_bundle

CUDA_PROVIDER = build_cuda_provider(GPU_DEFAULTS)
GPU = Machine(frozenset({CUDA, "CPUExecutionProvider"}))
NO_DRIVER = Machine(frozenset({CUDA, "CPUExecutionProvider"}), "no NVIDIA driver answers")
CPU_BUILD = Machine(frozenset({"CPUExecutionProvider"}))


@pytest.mark.parametrize("package", ["service.inference.engine", "training.export.graph_runner"])
def test_telemetry_of_onnx_runtime_is_off(package: str) -> None:
    program = f"import {package}, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


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


def test_a_session_that_falls_back_is_a_device_error(tmp_path: Path) -> None:
    """ONNX Runtime has no CUDA provider here, warns and continues on the CPU."""
    path = write_bundle(tmp_path) / "encoder.onnx"
    with (
        pytest.warns(UserWarning, match="not in available provider"),
        pytest.raises(DeviceError, match="CPU"),
    ):
        OnnxSession(path, CUDA_PROVIDER, threads=1)


def test_policy_auto_falls_back_to_the_cpu_if_cuda_fails(tmp_path: Path) -> None:
    path = write_bundle(tmp_path) / "encoder.onnx"
    with pytest.warns(UserWarning, match="not in available provider"):
        assert OnnxEngine("auto", machine=GPU).open(path).provider == "CPUExecutionProvider"


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
