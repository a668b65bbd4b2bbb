import json
from pathlib import Path
from typing import Literal

import pytest

from bundle.errors import InvalidParameter
from service import cli, cores
from service.app import count_workers
from service.inference import TELEMETRY, engine
from service.inference.providers import CUDA, Machine
from service.keys import compute_key_digest, create_key, parse_entries
from service.settings import Settings


def test_the_schema_is_printed_without_any_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert "/v1/models/{model}/encode" in json.loads(capsys.readouterr().out)["paths"]


def test_policy_cuda_fails_without_cuda(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "inspect_machine", lambda: Machine(frozenset()))
    assert cli.main(["check", "--device", "cuda", "--models", str(tmp_path)]) == 1
    assert "FAILED: device policy cuda: " in capsys.readouterr().out


def test_a_public_address_needs_keys(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = ["serve", "--host", "0.0.0.0", "--port", "0", "--models", str(tmp_path / "none")]
    assert cli.main(serve) == 1
    assert "0.0.0.0 can be reached by others, and no API key is needed" in capsys.readouterr().err
    for variable, value in (
        ("AE_OPEN_ACCESS", "true"),
        ("AE_API_KEYS", create_key("a", ["*"])[1]),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            assert cli.main(serve) == 1
        assert "none cannot be read" in capsys.readouterr().err


def test_a_key_is_created_with_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["create-key", "camera-1", "--right", "encode", "--right", "metrics"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    key, entry = first.removeprefix("key: "), second.split(": ", 1)[1]
    assert parse_entries(entry)["camera-1"].sha256 == compute_key_digest(key)
    assert cli.main(["create-key", "camera-1", "--right", "encod"]) == 1
    assert "rights: Input should be 'encode'" in capsys.readouterr().err


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(frozenset({CUDA}))
    monkeypatch.setattr(engine, "inspect_machine", lambda: machine)


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_has_one_worker(device: Literal["auto", "cuda"]) -> None:
    assert count_workers(Settings(workers="auto", device=device)) == 1
    with pytest.raises(InvalidParameter, match="workers is 2, but one process owns a GPU"):
        count_workers(Settings(workers=2, device=device))


def test_there_is_a_worker_for_every_core_or_every_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "count", lambda: 8)
    assert count_workers(Settings(device="cpu")) == 1
    assert count_workers(Settings(workers="auto", device="cpu")) == 8
    assert count_workers(Settings(workers="auto", device="cpu", threads=3)) == 2
    assert count_workers(Settings(workers="auto", device="cpu", threads=9)) == 1
    assert count_workers(Settings(workers=20, device="cpu")) == 20


def test_the_telemetry_of_onnx_runtime_and_workers_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TELEMETRY, "0")
    with pytest.raises(InvalidParameter, match="unset it, or set --workers 1"):
        count_workers(Settings(workers=2, device="cpu"))
