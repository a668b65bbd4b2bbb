"""The servers of the benchmark: how each is installed, started and asked."""

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import virtualenv

from benchmarks.serving.load import Request, ask

PEERS = Path(__file__).parent / "peers"
PORT = 8230
COMMON = ("onnxruntime==1.31.1", "pillow==13.0.0", "numpy")


@dataclass(frozen=True)
class Server:
    """A server that scores one image a request: `ask` makes its request of an image, `score` reads its answer."""

    name: str
    command: tuple[str, ...]  # after the Python of its environment
    ask: Callable[[bytes, str], Request]
    score: Callable[[Any], float]
    install: tuple[str, ...] = ()  # none: it runs in this environment


@dataclass
class Running:
    """A server that runs, pinned to some cores."""

    process: psutil.Process
    ready_after: float  # seconds

    def cpu(self) -> float:
        """Seconds of processor time, of the whole tree."""
        return sum(sum(each.cpu_times()[:2]) for each in self._tree())

    def pss(self) -> float:
        """Megabytes of memory, with what processes share counted once."""
        return sum(each.memory_full_info().pss for each in self._tree()) / 1e6

    def _tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def _multipart(field: str) -> Callable[[bytes, str], Request]:
    def make(image: bytes, kind: str) -> Request:
        head = (
            f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="image"\r\nContent-Type: {kind}\r\n\r\n'
        )
        return Request("/score", "multipart/form-data; boundary=x", head.encode() + image + b"\r\n--x--\r\n")

    return make


def _raw(path: str) -> Callable[[bytes, str], Request]:
    return lambda image, kind: Request(path, kind, image)


def _in_json(image: bytes, _: str) -> Request:
    tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": {"content_type": "base64"}}
    body = {"inputs": [tensor | {"data": [base64.b64encode(image).decode()]}]}
    return Request("/v2/models/score/infer", "application/json", json.dumps(body).encode())


def _in_binary(image: bytes, _: str) -> Request:
    tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES"}
    document = {"inputs": [tensor | {"parameters": {"binary_data_size": len(image) + 4}}]}
    head = json.dumps(document).encode()
    body = head + struct.pack("<I", len(image)) + image
    length = (("Inference-Header-Content-Length", str(len(head))),)
    return Request("/v2/models/score/infer", "application/octet-stream", body, length)


def ours(net: str, device: str = "cpu") -> Server:
    return Server(
        "this service",
        ("-m", "service", "serve", "--port", str(PORT), "--device", device),
        _raw(f"/v1/models/{net}/anomaly-score"),
        lambda answer: float(answer["results"][0]["score"]),
    )


def peers() -> list[Server]:
    def plain(answer: Any) -> float:
        return float(answer["score"])

    def inferred(answer: Any) -> float:
        return float(answer["outputs"][0]["data"][0])

    serve = ("-m", "bentoml", "serve", "bentoml_service:Score", "--port", str(PORT))
    return [
        Server(
            "FastAPI, naive",
            ("naive.py",),
            _multipart("image"),
            plain,
            ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "python-multipart"),
        ),
        Server("MLServer 1.7.1", ("mlserver_model.py",), _in_json, inferred, ("mlserver==1.7.1",)),
        Server(
            "LitServe 0.2.19",
            ("litserve_server.py",),
            _multipart("request"),
            plain,
            ("litserve==0.2.19", "python-multipart"),
        ),
        Server("BentoML 1.4.39", serve, _raw("/score"), plain, ("bentoml==1.4.39",)),
        Server("PyTriton 0.7.0", ("pytriton_server.py",), _in_binary, inferred, ("nvidia-pytriton==0.7.0",)),
        Server("Ray Serve 2.60.0", ("ray_server.py",), _raw("/score"), plain, ("ray[serve]==2.60.0",)),
    ]


def limits() -> list[Server]:
    """Servers that do nothing but read the same body."""
    return [
        Server("empty ASGI", ("limit_asgi.py",), _raw("/score"), lambda _: 0.0),
        Server("empty FastAPI", ("limit_fastapi.py",), _raw("/score"), lambda _: 0.0),
    ]


def python_of(server: Server, environments: Path) -> Path:
    """The Python of the server's environment, which is made where it is not there yet."""
    if not server.install:
        return Path(sys.executable)
    # PyTriton's stub brings the core of CPython 3.11.2 and takes the standard library of the Python that it runs with.
    base = "/usr/bin/python3.11" if server.name.startswith("PyTriton") else sys.executable
    directory = environments / server.name.split()[0].strip(",").lower()
    python = directory / "bin" / "python"
    if not python.exists():
        print(f"installing {server.name} into {directory}", flush=True)
        virtualenv.cli_run([str(directory), "--python", base])
        subprocess.run([python, "-m", "pip", "install", "--quiet", *server.install, *COMMON], check=True)
    return python


@contextmanager
def running(
    server: Server, python: Path, sample: Request, cores: Sequence[int], **environment: str
) -> Iterator[Running]:
    """Start a server, wait until it answers the sample, and end it with all that it started."""
    if _listens():
        raise RuntimeError(f"port {PORT} is in use: end what listens there")
    own = server.command[0] != "-m" or server.command[1] == "bentoml"
    began = time.perf_counter()
    process = subprocess.Popen(
        [python, *server.command],
        cwd=PEERS if own else None,
        env={**os.environ, "PORT": str(PORT), "THREADS": str(len(cores)), "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{server.name} ended with {process.returncode} before it was ready")
            try:
                ask(sample, PORT)
                break
            except (OSError, ValueError):
                if time.perf_counter() - began > 120:
                    raise
                time.sleep(0.02)
        yield Running(psutil.Process(process.pid), time.perf_counter() - began)
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server with all that it started, and wait until its port is free."""
    tree = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    psutil.wait_procs(tree, timeout=10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for left in tree:
        with suppress(psutil.NoSuchProcess):
            left.kill()
    process.wait()
    until = time.perf_counter() + 20
    while _listens() and time.perf_counter() < until:
        time.sleep(0.05)


def _listens() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0
