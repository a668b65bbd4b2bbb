import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import DeviceError
from service.inference import session
from service.inference.providers import CPU_PROVIDER, CUDA, CUDA_PROVIDER, DevicePolicy, Machine, Provider, candidates
from service.inference.session import OnnxEngine, OnnxSession
from tests.bundles import write_bundle

GPU = Machine(frozenset({CUDA, "CPUExecutionProvider"}))
NO_DRIVER = Machine(frozenset({CUDA, "CPUExecutionProvider"}), "no NVIDIA driver answers")
CPU_BUILD = Machine(frozenset({"CPUExecutionProvider"}))


@pytest.mark.parametrize("package", ["service.inference.session", "training.graphs"])
def test_onnx_runtime_is_told_to_report_to_nobody(package: str) -> None:
    program = f"import {package}, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
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
    assert candidates(policy, machine) == expected


@pytest.mark.parametrize(
    ("machine", "missing"), [(NO_DRIVER, "no NVIDIA driver answers"), (CPU_BUILD, "install the extra `cuda`")]
)
def test_policy_cuda_says_what_is_missing(machine: Machine, missing: str) -> None:
    with pytest.raises(DeviceError, match=missing):
        candidates("cuda", machine)


def test_a_session_that_falls_back_is_a_device_error(tmp_path: Path) -> None:
    """Here ONNX Runtime has no CUDA provider, warns, and goes on with the CPU: just what must not pass unseen."""
    path = write_bundle(tmp_path) / "encoder.onnx"
    with pytest.warns(UserWarning, match="not in available provider"), pytest.raises(DeviceError, match="CPU"):
        OnnxSession(path, CUDA_PROVIDER, threads=1)


def test_policy_auto_goes_on_with_the_cpu_where_cuda_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_bundle(tmp_path) / "encoder.onnx"
    monkeypatch.setattr(session, "inspect_machine", lambda: GPU)
    with pytest.warns(UserWarning, match="not in available provider"):
        assert OnnxEngine("auto").open(path).provider == "CPUExecutionProvider"
