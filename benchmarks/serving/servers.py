"""Servers of the benchmark: installation, start, requests and responses of each."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import virtualenv

from benchmarks.serving import bodies
from benchmarks.serving.load import Request, send

PEERS = Path(__file__).parent / "peers"
PORT = 8230
START_SECONDS, STOP_SECONDS = 120, 20  # timeouts
COMMON_PACKAGES = ("onnxruntime==1.31.1", "pillow==13.0.0", "numpy")


Ask = Callable[[bytes, str], Request]  # of an encoded image and its media type
# Of the same images as pixels (n, h, w, c) and as PNGs.
Bulk = Callable[[np.ndarray, Sequence[bytes]], Request]


@dataclass(frozen=True)
class Server:
    """A server that scores images."""

    name: str
    command: tuple[str, ...]  # after the Python of its environment
    ask: Ask  # builds a request with one image
    packages: tuple[str, ...] = ()  # none: it runs in this environment
    bulk: Mapping[str, Bulk] = field(default_factory=dict)  # builds a request with many, by format
    port: int = PORT


@dataclass
class RunningServer:
    """A server process with its children, pinned to some cores."""

    process: psutil.Process
    ready_after: float  # seconds

    def cpu(self) -> float:
        """Seconds of processor time, of all processes."""
        return sum(sum(each.cpu_times()[:2]) for each in self._tree())

    def pss(self) -> float:
        """Megabytes of memory (PSS): shared memory counts once."""
        return sum(each.memory_full_info().pss for each in self._tree()) / 1e6

    def _tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def _ask_raw(path: str) -> Ask:
    return lambda image, media_type: Request(path, media_type, image)


def _ask_multipart(path: str, field: str) -> Ask:
    return lambda image, media_type: bodies.multipart(path, [image], field, media_type)


def ours(net: str, device: str = "cpu", port: int = PORT) -> Server:
    """This service."""
    path = f"/v1/models/{net}/anomaly-score"
    command = ("-m", "service", "serve", "--port", str(port), "--device", device)
    return Server("this service", command, _ask_raw(path), bulk=build_our_bulk(path), port=port)


def build_our_bulk(path: str) -> dict[str, Bulk]:
    """Bulk requests of this service to one path."""
    return _build_bulk(path, path, path, both_ways=True)


def _build_bulk(
    npy: str, in_json: str, multipart: str, *, both_ways: bool = False
) -> dict[str, Bulk]:
    """Bulk requests in each of three formats, by the path that takes it."""
    return {
        "npy": lambda pixels, _: bodies.npy(npy, pixels, both_ways=both_ways),
        "json": lambda _, images: bodies.in_json(in_json, images),
        "multipart": lambda _, images: bodies.multipart(multipart, images),
    }


def peers() -> list[Server]:
    """Other servers; each is sent bulk requests in the formats that it supports."""
    serve = ("-m", "bentoml", "serve", "bentoml_service:Score", "--port", str(PORT))
    by_path = _build_bulk("/npy", "/json", "/multipart")
    by_media_type = _build_bulk("/score", "/score", "/score")
    return [
        Server(
            "FastAPI, naive",
            ("naive.py",),
            _ask_multipart("/score", "image"),
            ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "python-multipart"),
            by_path,
        ),
        Server(
            "MLServer 1.7.1",
            ("mlserver_model.py",),
            lambda image, _: bodies.inference_json([image]),
            ("mlserver==1.7.1",),
            {"json": lambda _, images: bodies.inference_json(images)},
        ),
        Server(
            "LitServe 0.2.19",
            ("litserve_server.py",),
            _ask_multipart("/score", "request"),
            ("litserve==0.2.19", "python-multipart"),
            {"json": by_path["json"]},
        ),
        Server("BentoML 1.4.39", serve, _ask_raw("/score"), ("bentoml==1.4.39",), by_path),
        Server(
            "PyTriton 0.7.0",
            ("pytriton_server.py",),
            lambda image, _: bodies.inference_images([image]),
            ("nvidia-pytriton==0.7.0",),
            {
                "npy": lambda pixels, _: bodies.inference_pixels(pixels),
                "multipart": lambda _, images: bodies.inference_images(images),
            },
        ),
        Server(
            "Ray Serve 2.60.0",
            ("ray_server.py",),
            _ask_raw("/score"),
            ("ray[serve]==2.60.0", "python-multipart"),
            by_media_type,
        ),
    ]


def limits() -> list[Server]:
    """Servers that only read the body."""
    return [
        Server("empty ASGI", ("limit_asgi.py",), _ask_raw("/score")),
        Server("empty FastAPI", ("limit_fastapi.py",), _ask_raw("/score")),
    ]


def parse_scores(response: bytes) -> list[float]:
    """Scores in the response of any of the servers."""
    if response.startswith(b"\x93NUMPY"):
        scores: list[float] = np.load(io.BytesIO(response)).tolist()
        return scores
    match json.loads(response):
        case {"results": results}:
            return [float(result["score"]) for result in results]
        case {"outputs": [{"data": data}]}:
            return [float(score) for score in data]
        case {"scores": many}:
            return [float(score) for score in many]
        case {"score": score}:
            return [float(score)]
    raise ValueError(f"no scores in {response[:100]!r}")


def install(server: Server, environments: Path) -> Path:
    """Create the server's environment, unless it exists; returns its Python."""
    if not server.packages:
        return Path(sys.executable)
    # PyTriton's stub has the core of CPython 3.11.2, but needs the standard library of its Python.
    base = "/usr/bin/python3.11" if server.name.startswith("PyTriton") else sys.executable
    directory = environments / server.name.split()[0].strip(",").lower()
    python = directory / "bin" / "python"
    if not python.exists():
        print(f"installing {server.name} into {directory}", flush=True)
        virtualenv.cli_run([str(directory), "--python", base])
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *server.packages, *COMMON_PACKAGES],
            check=True,
        )
    return python


@contextmanager
def run(
    server: Server, python: Path, sample: Request, cores: Sequence[int], **environment: str
) -> Iterator[RunningServer]:
    """Start a server, wait until it responds to the sample, and end it with its children."""
    if _is_port_open(server.port):
        raise RuntimeError(f"port {server.port} is in use: end the process that listens there")
    own = server.command[0] != "-m" or server.command[1] == "bentoml"
    began = time.perf_counter()
    process = subprocess.Popen(
        [python, *server.command],
        cwd=PEERS if own else None,
        env={
            **os.environ,
            "PORT": str(server.port),
            "THREADS": str(len(cores)),
            "PYTHONUNBUFFERED": "1",
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,  # in this session, because the scheduler divides cores among sessions
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(
                    f"{server.name} ended with {process.returncode} before it was ready"
                )
            try:
                send(sample, server.port)
                break
            except (OSError, ValueError):
                if time.perf_counter() - began > START_SECONDS:
                    raise
                time.sleep(0.02)
        yield RunningServer(psutil.Process(process.pid), time.perf_counter() - began)
    finally:
        _end(process, server.port)


def _end(process: "subprocess.Popen[bytes]", port: int) -> None:
    """End a server with its children, and wait until its port is free."""
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
    until = time.perf_counter() + STOP_SECONDS
    while _is_port_open(port) and time.perf_counter() < until:
        time.sleep(0.05)


def _is_port_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
