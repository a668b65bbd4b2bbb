import json
import re
import shlex
import sys
from pathlib import Path
from typing import Literal

import onnxruntime
import pytest

from bundle.errors import InvalidParameter
from bundle.terminal import name_module
from service import VERSION, cli, cores
from service.app import count_workers
from service.inference import TELEMETRY, engine
from service.inference.providers import CUDA, Machine
from service.keys import compute_key_digest, create_key, parse_entries
from service.settings import Settings
from tests.terminals import list_undescribed, run_into_closed_pipe, run_onto_full_disk


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


@pytest.mark.parametrize("right", ["*", "admin", "metrics", "encode", "anomaly-score"])
def test_a_right_of_a_key_is_an_operation_or_another_word(right: str) -> None:
    assert cli.main(["create-key", "camera.1", "--right", right]) == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            "camera --right encod",
            r"argument --right: invalid choice: 'encod' .*\*.*mean encode",
        ),
        ("camera --right metric", r"argument --right: .*did you mean metrics\?"),
        ("'my camera'", "argument NAME: 'my camera' is no name of a key; use 1 to 64 letters, "),
        ("''", "argument NAME: '' is no name of a key; "),
        ("k" * 65, "argument NAME: 'k+' is no name of a key; "),
    ],
)
def test_an_invalid_key_is_refused_with_its_argument(
    capsys: pytest.CaptureFixture[str], words: str, error: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["create-key", *shlex.split(words)])
    assert re.search(error, capsys.readouterr().err)


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


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, "--help"])
    return capsys.readouterr().out


COMMANDS = ("serve", "score", "check", "create-key", "schema")


def test_every_command_has_examples_that_are_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ((), *((name,) for name in COMMANDS)):
        _, _, examples = help_of(capsys, *command).partition("\nexamples:\n")
        lines = re.findall(r"python -m service ([^>|\n]+)", examples)
        assert 2 <= len(lines) <= 4
        for line in lines:
            options = cli._build_parser().parse_command(shlex.split(line))
            assert not command or options.command_name == command[0]


def test_the_versions_are_those_of_the_service_and_its_runtime(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    service, runtime, python = capsys.readouterr().out.splitlines()
    assert service == f"autoencoder-service {VERSION}"
    assert re.fullmatch(rf"onnxruntime(-gpu)? {onnxruntime.__version__}", runtime)
    assert python.split()[1] == sys.version.split()[0]


def test_a_bare_command_helps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["service"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err.endswith(f"\ntry first: {name_module('service')} serve\n")


CHECK = ("check", "--device", "cpu", "--models")


def test_check_prints_a_line_for_each_bundle(
    capsys: pytest.CaptureFixture[str], models: Path
) -> None:
    assert cli.main([*CHECK, str(models)]) == 1
    first, *rest, last = capsys.readouterr().out.splitlines()
    assert first == "device policy cpu: will try CPUExecutionProvider"
    assert rest[0].startswith("broken version 1: FAILED: ")
    assert rest[1].startswith("tiny version 1: works on CPUExecutionProvider: encode, decode")
    assert last == f"3 of 4 bundles in {models} work"


def test_check_prints_json(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    assert cli.main([*CHECK, str(models), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    bundles = document.pop("bundles")
    assert list_undescribed(document | bundles[0], "operations.md") == []
    assert document == {
        "models": str(models),
        "device": "cpu",
        "candidates": ["CPUExecutionProvider"],
        "working": 3,
    }
    broken, tiny = bundles[:2]
    assert broken.pop("error") == "decoder.onnx cannot be read: there is no such file"
    assert broken == {"name": "broken", "version": 1, "provider": None, "operations": []}
    assert tiny["operations"][:2] == ["encode", "decode"]
    assert (tiny["provider"], tiny["error"]) == ("CPUExecutionProvider", None)


def test_an_error_leaves_the_output_of_json_empty(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "inspect_machine", lambda: Machine(frozenset()))
    assert cli.main(["check", "--device", "cuda", "--models", str(tmp_path), "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: device policy cuda: ")


def test_a_key_is_printed_as_json_and_the_next_command_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["create-key", "camera-1", "--right", "encode", "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert list_undescribed(document, "operations.md") == []
    digest = compute_key_digest(document["key"])
    assert document["entry"] == {"camera-1": {"sha256": digest, "rights": ["encode"]}}
    setting, *command = shlex.split(printed.err.removeprefix("serve with it: "))
    assert parse_entries(setting.removeprefix("AE_API_KEYS="))["camera-1"].sha256 == digest
    assert shlex.join(command) == f"{name_module('service')} serve"


@pytest.mark.parametrize("command", [("schema",), CHECK, ("create-key", "a"), ("--help",)])
def test_a_closed_pipe_ends_a_command_silently(command: tuple[str, ...], models: Path) -> None:
    words = [*command, str(models)] if command is CHECK else command
    assert run_into_closed_pipe("service", *words) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [("schema",), ("create-key", "a"), ("--version",)])
def test_a_full_disk_is_named(command: tuple[str, ...], unbuffered: str) -> None:
    error = "error: standard output cannot be written: No space left on device\n"
    assert run_onto_full_disk(unbuffered, "service", *command) == (1, error)
