import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.errors import BundleError
from service.inference.engine import OnnxEngine
from service.inference.providers import (
    CUDA,
    Machine,
)
from tests.bundles import (
    write_bundle,
)
from tests.service.inference.test_providers import GPU


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


def test_policy_auto_falls_back_to_the_cpu_if_cuda_fails(tmp_path: Path) -> None:
    path = write_bundle(tmp_path) / "encoder.onnx"
    with pytest.warns(UserWarning, match="not in available provider"):
        assert OnnxEngine("auto", machine=GPU).open(path).provider == "CPUExecutionProvider"


def test_an_invalid_graph_does_not_count_as_a_device_that_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph at all")
    with (
        pytest.warns(UserWarning, match="not in available provider"),
        pytest.raises(BundleError, match="cannot be loaded"),
    ):
        OnnxEngine("cuda", machine=Machine(frozenset({CUDA}))).open(tmp_path / "bad.onnx")
