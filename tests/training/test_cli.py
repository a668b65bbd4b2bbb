import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.terminal import name_module
from tests.conftest import DATA
from tests.e2e.conftest import SMALL
from tests.terminals import Terminal, list_undescribed, run_into_closed_pipe, run_onto_full_disk
from tests.training.conftest import tiny, train
from training import cli, recipes
from training.data.splits import Split


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """A training that has come to its third epoch, and its terminal."""
    command = [
        sys.executable,
        "-m",
        "training",
        "train",
        "mnist-undercomplete",
        "--data",
        str(DATA),
    ]
    command += ["--models", str(tmp_path / "models"), "--runs", str(tmp_path / "runs")]
    for entry in (
        "data.calibration=50",
        "data.validation=20",
        "training.batch_size=32",
        "mixture_components=1",
    ):
        command += ["--set", entry]
    command += ["--set", "training.epochs=2000"]
    terminal = Terminal()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal.theirs) as process:
        os.close(terminal.theirs)
        terminal.wait_for("epoch=3")
        yield process, terminal
        process.kill()
    terminal.close()


def test_a_killed_command_leaves_a_checkpoint_and_publishes_nothing(
    endless: tuple[subprocess.Popen[bytes], Terminal], tmp_path: Path
) -> None:
    process, _ = endless
    process.kill()
    process.wait()
    assert not list((tmp_path / "models").iterdir())
    (checkpoint,) = (tmp_path / "runs" / "mnist-undercomplete").glob("*/last.json")
    assert 2 <= json.loads(checkpoint.read_text())["state"]["run"]["epoch"] < 2000


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_command_says_how_to_resume(
    endless: tuple[subprocess.Popen[bytes], Terminal], number: signal.Signals, status: int
) -> None:
    process, terminal = endless
    process.send_signal(number)
    terminal.wait_for("interrupted; rerun the same command to resume")
    assert process.wait() == status


def test_piped_output_has_a_line_for_each_stage(
    tmp_path: Path, images: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny("mnist-classifier"), images, tmp_path, log=print)
    shown = capsys.readouterr()
    assert "%|" not in shown.err
    for stage in ("autoencoder", "classifier"):
        assert (
            len(
                re.findall(
                    rf"^{stage}: 2 epochs in \d+ s, validation loss \d", shown.out, re.MULTILINE
                )
            )
            == 1
        )


def test_errors_are_printed_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "mnist-vea"]) == 1
    assert cli.main(["train", "mnist-vae", "--data", str(tmp_path)]) == 1
    assert cli.main(["train", "mnist-denoising", "--set", "architecture.widths=[4,4,4]"]) == 1
    assert cli.main(["train", "mnist-vae", "--data", str(DATA)]) == 1
    (tmp_path / "file").touch()
    small = [
        word for entry in ("data.calibration=50", "data.validation=20") for word in ("--set", entry)
    ]
    assert (
        cli.main(
            ["train", "mnist-vae", "--data", str(DATA), "--models", str(tmp_path / "file"), *small]
        )
        == 1
    )
    printed = capsys.readouterr().err
    assert "did you mean 'mnist-vae'" in printed
    assert "there is no train-images-idx3-ubyte.gz" in printed
    assert "architecture: 28x28 cannot be halved 3 times" in printed
    assert "256 images to train on are too few" in printed
    assert "File exists" in printed


def test_recipes_are_listed_without_torch() -> None:
    code = (
        "import sys; from training import cli; cli.main(['recipes']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mnist-denoising" in done.stdout
    assert done.stdout.endswith("False\n")


COMMANDS = (
    "train",
    "publish",
    "evaluate",
    "convert-fp16",
    "calibrate",
    "report",
    "recipes",
    "overview",
)


def test_every_command_has_examples_that_are_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ((), *((name,) for name in COMMANDS)):
        with pytest.raises(SystemExit, match="0"):
            cli.main([*command, "--help"])
        _, _, examples = capsys.readouterr().out.partition("\nexamples:\n")
        lines = re.findall(r"python -m training (.+)", examples)
        assert 2 <= len(lines) <= 4
        for line in lines:
            options = cli._build_parser().parse_command(shlex.split(line))
            assert not command or options.command_name == command[0]


def test_the_versions_are_printed_without_torch() -> None:
    code = (
        "import sys, atexit; from training import cli;"
        " atexit.register(lambda: print('torch' in sys.modules)); cli.main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    program, torch, python, imported = done.stdout.splitlines()
    assert program.startswith("autoencoder-service ")
    assert torch == f"torch {importlib.metadata.version('torch')}"
    assert python.startswith("Python 3.")
    assert imported == "False"


def test_a_bare_command_helps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["training"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err.endswith(f"\ntry first: {name_module('training')} recipes\n")


def test_recipes_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "--json"]) == 0
    found = {
        recipe["name"]: recipe["description"]
        for recipe in json.loads(capsys.readouterr().out)["recipes"]
    }
    assert found == recipes.descriptions()


def test_the_published_model_is_printed_as_json_and_the_log_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    command = ["train", "mnist-undercomplete", "--data", str(DATA), "--models", str(models)]
    command += ["--runs", str(tmp_path / "runs"), "--json"]
    assert cli.main([*command, *SMALL, "--set", "mixture_components=0"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert list_undescribed(document, "training.md") == []
    location = models / "mnist-undercomplete" / "1"
    manifest = json.loads((location / "manifest.json").read_text(encoding="utf-8"))
    assert document == {
        "location": str(location),
        "model": "mnist-undercomplete",
        "version": 1,
        "metrics": manifest["metrics"],
        "other_encoder": None,
    }
    assert "autoencoder: 1 epochs in" in printed.err
    assert printed.err.endswith(f"serve it: {name_module('service')} serve --models {models}\n")
    options = ["--data", str(DATA), "--models", str(models), "--json"]
    assert cli.main(["evaluate", "mnist-undercomplete", *options]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["model"] == "mnist-undercomplete"
    assert measured["metrics"] == {
        name: pytest.approx(manifest["metrics"][name], rel=1e-3) for name in measured["metrics"]
    }
    assert cli.main(["report", "mnist-undercomplete", *options, "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    page = tmp_path / "index.html"
    assert json.loads(printed.out) == {"report": str(page)}
    assert printed.err.endswith(f"open it: {name_module('webbrowser')} {page.as_uri()}\n")


@pytest.mark.parametrize("command", ["recipes", "--help"])
def test_a_closed_pipe_ends_a_command_silently(command: str) -> None:
    assert run_into_closed_pipe("training", command) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_is_named(options: tuple[str, ...], unbuffered: str) -> None:
    error = "error: standard output cannot be written: No space left on device\n"
    assert run_onto_full_disk(unbuffered, "training", "recipes", *options) == (1, error)
