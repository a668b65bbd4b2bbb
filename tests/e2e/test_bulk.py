"""The bulk scorer as a process of its own: against a real server, and killed in the middle."""

import csv
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.bulk.job import WORKERS
from service.bulk.runner import CHUNK_IMAGES
from tests.conftest import DATA
from tests.e2e.conftest import ROOT, Server
from training.data import mnist

COUNT = (WORKERS + 4) * CHUNK_IMAGES + 7


class Stub(ThreadingHTTPServer):
    """A service that gives every image the score 1, and holds back all after `most` requests."""

    daemon_threads = True

    def __init__(self, most: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.left = most
        self.images = 0
        self.lock = threading.Lock()
        self.holds = threading.Event()
        self.ended = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Stub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        calibration = {"images": 99}
        card = {"version": 1, "capabilities": ["anomaly-score"], "calibration": calibration}
        self._respond({"models": [card]} if self.path == "/v1/models" else card)

    def do_POST(self) -> None:
        count = self.rfile.read(int(self.headers["Content-Length"])).count(b'name="images"')
        with self.server.lock:
            self.server.left -= 1
            held = self.server.left < 0
            self.server.images += count
        if held:
            self.server.holds.set()
            self.server.ended.wait(60)
            self.close_connection = True
            return
        verdict = {"score": 1.0, "p_value": 0.5, "threshold": 2.0, "is_anomaly": False}
        self._respond({"results": [verdict] * count})

    def _respond(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(COUNT):
        Image.new("L", (2, 2)).save(tmp_path / "photos" / f"{index:05d}.png")
    return tmp_path / "photos"


def command(photos: Path, output: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "service",
        "score",
        str(photos),
        "--output",
        str(output),
        *options,
    ]


def serving(most: int) -> Iterator[Stub]:
    with Stub(most) as stub:
        thread = threading.Thread(target=stub.serve_forever)
        thread.start()
        yield stub
        stub.ended.set()
        stub.shutdown()
        thread.join()


@pytest.fixture
def stuck() -> Iterator[Stub]:
    # The last of these requests is of a chunk before which the first chunk's rows were written.
    yield from serving(WORKERS + 1)


@pytest.fixture
def willing() -> Iterator[Stub]:
    yield from serving(10**9)


def test_a_kill_in_the_middle_loses_and_doubles_nothing(
    photos: Path, tmp_path: Path, stuck: Stub, willing: Stub
) -> None:
    table, journal = tmp_path / "scores.csv", tmp_path / "scores.csv.partial"
    address = f"127.0.0.1:{stuck.server_port}"
    killed = subprocess.Popen(
        command(photos, table, "--model", "m", "--url", f"http://{address}"),
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    assert stuck.holds.wait(60)
    killed.kill()
    killed.wait()
    assert not table.exists()
    left = sqlite3.connect(journal)
    (done,) = left.execute("SELECT count(*) FROM rows").fetchone()
    # The stub is another now; to the command it is the same service.
    left.execute(
        "UPDATE run SET text = replace(text, ?, ?)", [address, f"127.0.0.1:{willing.server_port}"]
    )
    left.commit()
    left.close()
    assert CHUNK_IMAGES <= done < COUNT

    again = command(
        photos, table, "--model", "m", "--url", f"http://127.0.0.1:{willing.server_port}"
    )
    subprocess.run(again, cwd=ROOT, check=True, capture_output=True)
    with table.open(newline="") as stream:
        rows = [*csv.DictReader(stream)]
    assert [row["path"] for row in rows] == [
        str(photos / f"{index:05d}.png") for index in range(COUNT)
    ]
    assert {row["score"] for row in rows} == {"1.0"}
    assert willing.images == COUNT - done
    assert not journal.exists()


def test_a_real_server_and_this_process_give_the_same_scores(
    tmp_path: Path, server: Server
) -> None:
    (tmp_path / "digits").mkdir()
    for index, digit in enumerate(mnist.read(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")[:70]):
        Image.fromarray(digit).save(tmp_path / "digits" / f"{index}.png")
    model = ("--model", "mnist-undercomplete", "--device", "cpu")
    tables = []
    for name, options in (("local", ()), ("remote", ("--url", server.url))):
        output = tmp_path / f"{name}.jsonl"
        subprocess.run(
            command(tmp_path / "digits", output, *model, *options),
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        tables.append([json.loads(line) for line in output.read_text().splitlines()])
    local, remote = tables
    assert len(local) == 70
    assert [row["path"] for row in local] == [row["path"] for row in remote]
    np.testing.assert_allclose(
        [row["score"] for row in local], [row["score"] for row in remote], rtol=1e-4
    )


SCRIPT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


@pytest.mark.parametrize("entry", ["python -m service", "autoencoder-service"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_command_fails_and_says_how_to_resume(
    photos: Path, tmp_path: Path, stuck: Stub, entry: str, number: signal.Signals, status: int
) -> None:
    table, journal = tmp_path / "scores.csv", tmp_path / "scores.csv.partial"
    url = f"http://127.0.0.1:{stuck.server_port}"
    words = command(photos, table, "--model", "m", "--url", url)
    if entry in SCRIPT:
        module, function = SCRIPT[entry].split(":")
        code = f"import sys; from {module} import {function}; sys.exit({function}())"
        words[1:3] = ["-c", code]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert stuck.holds.wait(60)
        process.send_signal(number)
        stuck.ended.set()
        _, errors = process.communicate(timeout=60)
    assert errors == f"interrupted; rerun to resume from {journal}\n"
    assert process.returncode == status
    assert journal.exists()
    assert not table.exists()
