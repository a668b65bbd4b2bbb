import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import DATA
from tests.training.conftest import tiny, train
from training import cli
from training.data.splits import Split


class Terminal:
    """A terminal of its own for stderr, which shows the progress bar."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 200))

    def wait_for(self, text: str) -> None:
        """Read until the text is shown. Raises OSError if all writers end before."""
        shown = ""
        while text not in shown:
            shown += os.read(self._ours, 1000).decode()

    def close(self) -> None:
        os.close(self._ours)


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
