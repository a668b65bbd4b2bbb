import contextlib
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = [  # makes a training command of the documents short enough for a test
    word
    for entry in (
        "data.calibration=50",
        "data.validation=20",
        "training.epochs=1",
        "training.batch_size=32",
        "evaluation.importance_samples=0",
    )
    for word in ("--set", entry)
]
SMALL_DETECTOR = [
    word
    for entry in (
        "detector.sizes=[128]",
        "detector.candidates=['neighbours']",
        "detector.banks=[200]",
    )
    for word in ("--set", entry)
]


def run_module(module: str, arguments: list[str], directory: Path) -> None:
    """Run `python -m module` in a directory, but in this process, which spares the imports."""
    code: object = None
    with contextlib.chdir(directory), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        patch.delitem(sys.modules, f"{module}.__main__", raising=False)  # a test may import it
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
    assert not code, [module, *arguments]


@dataclass(frozen=True)
class Server:
    """A real server process, and its line of readiness."""

    process: "subprocess.Popen[str]"
    ready: str

    @property
    def url(self) -> str:
        return self.ready.split()[1]

    def end(self) -> int:
        """End the process. Returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def start(*arguments: str, **environment: str) -> Server:
    command = [sys.executable, "-m", "service", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"AE_SHUTDOWN_DELAY": "0"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return Server(process, process.stdout.readline())


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The service with the shipped models, on a free port."""
    server = start("--models", "models", "--device", "cpu")
    yield server
    assert server.end() == 0
