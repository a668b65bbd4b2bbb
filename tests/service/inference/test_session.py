from pathlib import Path

import pytest

from service.errors import DeviceError
from service.inference.providers import (
    GPU_DEFAULTS,
    build_cuda_provider,
)
from service.inference.session import OnnxSession
from tests.bundles import (
    write_bundle,
)


def test_a_session_that_falls_back_is_a_device_error(tmp_path: Path) -> None:
    """ONNX Runtime has no CUDA provider here, warns and continues on the CPU."""
    path = write_bundle(tmp_path) / "encoder.onnx"
    with (
        pytest.warns(UserWarning, match="not in available provider"),
        pytest.raises(DeviceError, match="CPU"),
    ):
        OnnxSession(path, build_cuda_provider(GPU_DEFAULTS), threads=1)
