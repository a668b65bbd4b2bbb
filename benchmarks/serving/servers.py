"""The servers of the benchmark: how each is installed, started and asked."""

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
from benchmarks.serving.load import Request, ask

PEERS = Path(__file__).parent / "peers"
PORT = 8230
COMMON = ("onnxruntime==1.31.1", "pillow==13.0.0", "numpy")


Ask = Callable[[bytes, str], Request]  # of an encoded image and its media type
Bulk = Callable[
    [np.ndarray, Sequence[bytes]], Request
]  # of the same images as pixels (n, h, w, c) and as PNGs


@dataclass(frozen=True)
class Server:
    """A server that scores images: `ask` makes a request of one, `bulk` one of many in each way that it has."""

    name: str
    command: tuple[str, ...]  # after the Python of its environment
    ask: Ask
    install: tuple[str, ...] = ()  # none: it runs in this environment
    bulk: Mapping[str, Bulk] = field(default_factory=dict)


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


def _raw(path: str) -> Ask:
    return lambda image, kind: Request(path, kind, image)


def _part(path: str, field: str) -> Ask:
    return lambda image, kind: bodies.multipart(path, [image], field, kind)


def ours(net: str, device: str = "cpu") -> Server:
    path = f"/v1/models/{net}/anomaly-score"
    command = ("-m", "service", "serve", "--port", str(PORT), "--device", device)
    return Server("this service", command, _raw(path), bulk=our_bulk(path))


def our_bulk(path: str) -> dict[str, Bulk]:
    return _ways(path, path, path, both_ways=True)


def _ways(npy: str, in_json: str, multipart: str, *, both_ways: bool = False) -> dict[str, Bulk]:
    """Many images in each of three bodies, by the path that takes it."""
    return {
        "npy": lambda pixels, _: bodies.npy(npy, pixels, both_ways=both_ways),
        "json": lambda _, images: bodies.in_json(in_json, images),
        "multipart": lambda _, images: bodies.multipart(multipart, images),
    }


def peers() -> list[Server]:
    """Each is sent many images in the ways that it offers."""
    serve = ("-m", "bentoml", "serve", "bentoml_service:Score", "--port", str(PORT))
    plain, by_type = _ways("/npy", "/json", "/multipart"), _ways("/score", "/score", "/score")
    return [
        Server(
            "FastAPI, naive",
            ("naive.py",),
            _part("/score", "image"),
            ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "python-multipart"),
            plain,
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
            _part("/score", "request"),
            ("litserve==0.2.19", "python-multipart"),
            {"json": plain["json"]},
        ),
        Server("BentoML 1.4.39", serve, _raw("/score"), ("bentoml==1.4.39",), plain),
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
            _raw("/score"),
            ("ray[serve]==2.60.0", "python-multipart"),
            by_type,
        ),
    ]


def limits() -> list[Server]:
    """Servers that do nothing but read the same body."""
    return [
        Server("empty ASGI", ("limit_asgi.py",), _raw("/score")),
        Server("empty FastAPI", ("limit_fastapi.py",), _raw("/score")),
    ]


def scores(answer: bytes) -> list[float]:
    """In whichever form one of the servers says them."""
    if answer.startswith(b"\x93NUMPY"):
        found: list[float] = np.load(io.BytesIO(answer)).tolist()
        return found
    match json.loads(answer):
        case {"results": results}:
            return [float(result["score"]) for result in results]
        case {"outputs": [{"data": data}]}:
            return [float(score) for score in data]
        case {"scores": many}:
            return [float(score) for score in many]
        case {"score": score}:
            return [float(score)]
    raise ValueError(f"no scores in {answer[:100]!r}")


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
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *server.install, *COMMON], check=True
        )
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
        env={
            **os.environ,
            "PORT": str(PORT),
            "THREADS": str(len(cores)),
            "PYTHONUNBUFFERED": "1",
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(
                    f"{server.name} ended with {process.returncode} before it was ready"
                )
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
