import json
from pathlib import Path

import pytest

from service import cli
from service.inference import engine
from service.inference.providers import Machine


def test_the_schema_is_printed_without_any_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert "/v1/models/{model}/encode" in json.loads(capsys.readouterr().out)["paths"]


def test_policy_cuda_fails_without_cuda(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "inspect_machine", lambda: Machine(frozenset()))
    assert cli.main(["check", "--device", "cuda", "--models", str(tmp_path)]) == 1
    assert "FAILED: device policy cuda: " in capsys.readouterr().out
