"""Load the service with good, bad, slow, unread and abandoned requests while a detector is swapped.

    python -m benchmarks.soak PHOTOGRAPH [--seconds S] [--output docs/results/soak.json]

Responses are compared with those before the load. The largest detector is published again every
20 seconds, and SIGHUP takes it up. Printed are the responses by kind and status, those that are
wrong, the slowest liveness probe, and the memory and file handles of the process.
"""

import argparse
import asyncio
import http.client
import json
import logging
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import hostile_images
from benchmarks.serving.load import Request
from bundle.imaging import encode_png
from bundle.manifest import MANIFEST

PORT = 8240
LARGE, SMALL = "cookies", "mnist-vae"
SWAP_SECONDS = 20
CONNECTIONS = {"good small": 16, "good large": 8, "bad": 8, "slow": 6, "unread": 4, "abandoned": 6}
PROMISED = {503, 504}  # of slow bodies, and of models that are swapped
TOLERANCE = 1e-4  # of scores: other images of a batch change the last bits


@dataclass
class Soak:
    """A run: its requests, its responses, and the state of the server."""

    photograph: bytes
    until: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)  # seconds
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MB
    handles: list[int] = field(default_factory=list)
    swaps: list[float] = field(default_factory=list)  # seconds until a version answered

    def __post_init__(self) -> None:
        generator = np.random.default_rng(0)
        self.digits = [
            encode_png(generator.integers(0, 256, (28, 28), dtype=np.uint8)) for _ in range(32)
        ]
        self.scoring = _post(f"{LARGE}/anomaly-score", "image/jpeg", self.photograph)
        self.latents: list[Any] = []
        self.score = 0.0
        hostile = [make() for make in hostile_images.FIXED.values()]
        self.bad = [
            *(_post(f"{SMALL}/encode", "image/png", each) for each in hostile),
            _post(f"{SMALL}/encode", "application/json", b"{" * 10_000),
            _post(f"{SMALL}/encode", "image/png", self.digits[0][:40]),
            _post("none/encode", "image/png", self.digits[0]),
            b"GARBAGE\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: here\r\nA: " + b"x" * 50_000 + b"\r\n\r\n",
        ]

    async def prepare(self) -> None:
        """Note the responses that are expected under load."""
        for digit in self.digits:
            self.latents.append((await self.encode(digit))["latents"])
        self.score = (await self.rate())["results"][0]["score"]

    async def encode(self, digit: bytes) -> Any:
        """Encode a digit."""
        return await self._ask(_post(f"{SMALL}/encode", "image/png", digit))

    async def rate(self) -> Any:
        """Score the photograph."""
        return await self._ask(self.scoring)

    async def _ask(self, request: bytes) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(request)
        _, body = await _read(reader)
        writer.close()
        return json.loads(body)

    async def good_small(self) -> None:
        """Encode digits on one connection, and compare the latents."""
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        while time.monotonic() < self.until:
            index = random.randrange(len(self.digits))
            writer.write(_post(f"{SMALL}/encode", "image/png", self.digits[index]))
            status, body = await _read(reader)
            self.statuses[f"good small {status}"] += 1
            if status == 200 and not np.allclose(
                json.loads(body)["latents"], self.latents[index], atol=TOLERANCE
            ):
                self.wrong.append(f"latents of digit {index}")
        writer.close()

    async def good_large(self) -> None:
        """Score the photograph on one connection, and compare the score."""
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        while time.monotonic() < self.until:
            writer.write(self.scoring)
            status, body = await _read(reader)
            self.statuses[f"good large {status}"] += 1
            if status == 200:
                score = json.loads(body)["results"][0]["score"]
                if abs(score - self.score) > TOLERANCE * max(1.0, abs(self.score)):
                    self.wrong.append(f"score {score}, not {self.score}")
        writer.close()

    async def bad_request(self) -> None:
        """Send what must be refused or at least be answered, each on its own connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(random.choice(self.bad))
        status, _ = await _read(reader)
        self.statuses[f"bad {status}"] += 1
        writer.close()

    async def slow(self) -> None:
        """Send the head or the body of a request slowly."""
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        request = _post(f"{SMALL}/encode", "image/png", self.digits[0])
        head = request.index(b"\r\n\r\n") + 4
        start = 0 if random.random() < 0.5 else head
        writer.write(request[:start])
        response = asyncio.create_task(_read(reader))
        for at in range(start, len(request), 8):
            if response.done():
                break
            writer.write(request[at : at + 8])
            await asyncio.sleep(1)
        status, _ = await asyncio.wait_for(response, 60)
        self.statuses[f"slow {status}"] += 1
        writer.close()

    async def unread(self) -> None:
        """Ask for large responses and read none of them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT, limit=1024)
        path = f"{LARGE}/anomaly-score?heatmap=overlay"
        for _ in range(4):
            writer.write(_post(path, "image/jpeg", self.photograph))
        await asyncio.sleep(random.uniform(1, 40))
        self.statuses["unread"] += 1
        writer.transport.abort()
        del reader

    async def abandoned(self) -> None:
        """Leave before the response."""
        _, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(self.scoring)
        await asyncio.sleep(random.uniform(0, 0.3))
        self.statuses["abandoned"] += 1
        writer.transport.abort()

    async def watch(self, process: psutil.Process) -> None:
        """Note memory and file handles every second."""
        began = time.monotonic()
        while time.monotonic() < self.until:
            self.memory.append((time.monotonic() - began, process.memory_info().rss / 1e6))
            self.handles.append(process.num_fds())
            await asyncio.sleep(1)

    async def swap(self, models: Path, process: psutil.Process) -> None:
        """Publish the detector in a new version, and remove the version before."""
        directory = models / LARGE
        version = max(int(path.name) for path in directory.iterdir())
        while time.monotonic() + SWAP_SECONDS < self.until:
            await asyncio.sleep(SWAP_SECONDS)
            before, version = directory / str(version), version + 1
            await asyncio.to_thread(_publish, before, directory / str(version), version)
            began = time.monotonic()
            process.send_signal(signal.SIGHUP)
            while (await self.rate()).get("version") != version:
                await asyncio.sleep(0.1)
            self.swaps.append(time.monotonic() - began)
            shutil.rmtree(before)
            process.send_signal(signal.SIGHUP)

    async def repeat(self, kind: str, client: Callable[[], Awaitable[None]]) -> None:
        """Run a client until the end; count the connections that were closed on it."""
        while time.monotonic() < self.until:
            try:
                await client()
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.statuses[f"{kind} closed"] += 1
                await asyncio.sleep(0.05)

    async def run(self, seconds: float, models: Path, process: psutil.Process) -> None:
        """Load the service for so many seconds."""
        await self.prepare()
        self.until = time.monotonic() + seconds
        clients = {
            "good small": self.good_small,
            "good large": self.good_large,
            "bad": self.bad_request,
            "slow": self.slow,
            "unread": self.unread,
            "abandoned": self.abandoned,
        }
        loads = [
            self.repeat(kind, clients[kind])
            for kind, count in CONNECTIONS.items()
            for _ in range(count)
        ]
        # In a process of its own, because this one is as busy as the service.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            probes = pool.submit(_probe, seconds)
            await asyncio.gather(*loads, self.watch(process), self.swap(models, process))
            self.probes = await asyncio.wrap_future(probes)

    def summarise(self) -> dict[str, Any]:
        """Return the metrics of the run."""
        minutes = [
            round(statistics.mean(mb for at, mb in self.memory if at // 60 == minute), 1)
            for minute in range(int(self.memory[-1][0] // 60) + 1)
        ]
        unpromised = sum(
            count
            for kind, count in self.statuses.items()
            if kind[-3:].isdecimal() and int(kind[-3:]) >= 500 and int(kind[-3:]) not in PROMISED
        )
        return {
            "connections": sum(CONNECTIONS.values()),
            "responses": dict(sorted(self.statuses.items())),
            "wrong": len(self.wrong),
            "unpromised_5xx": unpromised,
            "livez_seconds": {
                "p50": round(float(np.percentile(self.probes, 50)), 3),
                "p99": round(float(np.percentile(self.probes, 99)), 3),
                "slowest": round(max(self.probes), 3),
            },
            "swaps": len(self.swaps),
            "slowest_swap_seconds": round(max(self.swaps, default=0.0), 1),
            "memory_mb_by_minute": minutes,
            "memory_mb_most": round(max(mb for _, mb in self.memory), 1),
            "handles_most": max(self.handles),
            "handles_last": self.handles[-1],
        }


def _probe(seconds: float) -> list[float]:
    """Ask for liveness ten times a second, and return the seconds of each response."""
    until, took = time.monotonic() + seconds, []
    while time.monotonic() < until:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
        took.append(time.monotonic() - began)
        time.sleep(0.1)
    return took


def _post(path: str, media_type: str, body: bytes) -> bytes:
    return Request(f"/v1/models/{path}", media_type, body).encode(PORT)


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return int(head[9:12]), await reader.readexactly(length)


def _publish(source: Path, target: Path, version: int) -> None:
    """Copy a bundle to another version, complete with one rename."""
    staging = target.with_name(f".staging-{version}")
    shutil.copytree(source, staging)
    manifest = json.loads((staging / MANIFEST).read_bytes())
    (staging / MANIFEST).write_text(json.dumps(manifest | {"version": version}))
    staging.rename(target)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__.splitlines()[0]
    )
    parser.add_argument("photograph", type=Path, metavar="PHOTOGRAPH", help="a JPEG")
    parser.add_argument("--seconds", type=float, default=600, metavar="S", help="(%(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the metrics as JSON")
    options = parser.parse_args(arguments)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of writes after the end
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory) / "models"
        shutil.copytree("models", models)
        command = [sys.executable, "-m", "service", "serve", "--port", str(PORT)]
        server = subprocess.Popen(
            [*command, "--models", str(models), "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"AE_LOG_LEVEL": "warning"},
        )
        assert server.stdout is not None
        server.stdout.readline()
        soak = Soak(options.photograph.read_bytes())
        try:
            asyncio.run(soak.run(options.seconds, models, psutil.Process(server.pid)))
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=30)
    metrics = soak.summarise() | {"exit_code": server.returncode, "seconds": options.seconds}
    print(json.dumps(metrics, indent=1))
    for wrong in soak.wrong[:5]:
        print(wrong)
    if options.output:
        options.output.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
