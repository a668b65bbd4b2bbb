"""Compare the service with its peers and with the limits of its machine.

    python -m benchmarks.serving [--only PART...] [--seconds 3] [--rounds 3]
                                 [--environments runs/peers]

Each server runs on core 0, and the load comes from core 1; in the part `cores` all share both.
Every round runs each server once, and a metric is the median over the rounds. All servers load the
same graph, and each must return the score of the bare session before it is timed.

The first run installs the peers, in the versions of `servers.py`. It needs the extras `cpu`,
`training` and `benchmarks`, and for PyTriton a `/usr/bin/python3.11`.
"""

import argparse
import io
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.serving import load, networks, servers
from benchmarks.serving.bodies import draw_picture
from benchmarks.serving.load import Request, Responses
from benchmarks.serving.servers import PORT, Bulk, RunningServer, Server
from bundle import imaging

OUTPUT = Path("docs/results/serving.json")
PARTS = ("digits", "photos", "bulk", "cores", "large", "overload", "start")
CONNECTIONS = (1, 16, 64)
BULK_IMAGES = (32, 256)  # in a request
Metrics = dict[str, Any]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/serving"), help="for networks (%(default)s)"
    )
    parser.add_argument(
        "--environments", type=Path, default=Path("runs/peers"), help="(%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="JSON", help="(%(default)s)")
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    results: Metrics = json.loads(options.output.read_text()) if options.output.is_file() else {}
    processor = platform.processor() or platform.machine()
    results["machine"] = f"{processor}, {os.cpu_count()} cores, {platform.platform()}"
    bench = Bench(options.work, options.environments, options.seconds, options.rounds)
    for part in options.only:
        print(f"{part}:", flush=True)
        results[part] = getattr(bench, part)()
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


class Bench:
    """The parts of the benchmark; each returns its metrics, in seconds and megabytes."""

    def __init__(self, work: Path, environments: Path, seconds: float, rounds: int) -> None:
        self.models, self.environments = (work / "models").resolve(), environments.resolve()
        self.seconds, self.rounds = seconds, rounds
        self.graphs = {name: networks.write(name, self.models) for name in networks.NETS}

    def digits(self) -> Metrics:
        """Small images of a small network."""
        return self._singles(
            "digits", draw_picture(28, 28, "PNG"), "image/png", batches=(1, 16, 64)
        )

    def photos(self) -> Metrics:
        """JPEGs of a network that takes about 20 ms."""
        return self._singles(
            "photos", draw_picture(256, 256, "JPEG"), "image/jpeg", batches=(1, 16)
        )

    def bulk(self) -> Metrics:
        """Bulk requests of the small network, two at a time: one is read while the other runs."""
        spec = networks.NETS["digits"].spec
        pixels = np.random.default_rng(1).integers(0, 256, (256, *spec.shape), dtype=np.uint8)
        images = [imaging.encode_png(image) for image in pixels]
        expected = self._scores("digits", pixels)
        rounds: dict[str, list[Metrics]] = {}
        for _ in range(self.rounds):
            for server in (servers.ours("digits"), *servers.peers()):
                rounds.setdefault(server.name, []).append(
                    self._bulk(server, server.bulk, pixels, images, expected)
                )
            encode = servers.build_our_bulk("/v1/models/digits/encode")
            rounds.setdefault("encode", []).append(
                self._bulk(servers.ours("digits"), encode, pixels, images)
            )
        image, encoder = draw_picture(28, 28, "PNG"), self.models / "digits" / "1" / "encoder.onnx"
        limits = {
            "anomaly-score": self._limits(self.graphs["digits"], image, BULK_IMAGES),
            "encode": self._limits(encoder, image, BULK_IMAGES),
        }
        return {name: take_medians(each) for name, each in rounds.items()} | {"limits": limits}

    def cores(self) -> Metrics:
        """JPEGs on both cores, which the server shares with the load."""
        image = draw_picture(256, 256, "JPEG")
        measured: Metrics = {
            "limits": self._limits(self.graphs["photos"], image, (1, 16), cores=(0, 1))
        }
        request = servers.ours("photos").ask(image, "image/jpeg")
        with self._ours("photos", cores=(0, 1)) as running:
            measured |= self._median(running, request, (16,))
        print(f"  {measured['16']['rate']:.1f} requests a second")
        return measured

    def large(self) -> Metrics:
        """A photograph of twelve megapixels, compared with a peer that decodes it whole."""
        image = draw_picture(3000, 4000, "JPEG")
        measured: Metrics = {}
        for server in (servers.ours("photos"), servers.peers()[0]):
            measured[server.name] = self._serve(server, "photos", image, "image/jpeg", (1, 4))
        return measured

    def overload(self) -> Metrics:
        """A minute at 64 connections, then at 640, with slots for 64 images."""
        request = servers.ours("digits").ask(draw_picture(28, 28, "PNG"), "image/png")
        with self._ours("digits", AE_MAX_IMAGES="64", AE_MAX_QUEUED_IMAGES="64") as running:
            measured = {str(count): self._load(running, request, count, 60) for count in (64, 640)}
        for count, each in measured.items():
            print(
                f"  {count} connections: p99 {each['p99'] * 1000:.1f} ms,"
                f" statuses {each['statuses']}"
            )
        return measured

    def start(self) -> Metrics:
        """Seconds until ready, and memory, with all shipped models."""
        request = Request(
            "/v1/models/mnist-undercomplete/anomaly-score", "image/png", draw_picture(28, 28, "PNG")
        )
        ready, memory = [], []
        for _ in range(self.rounds):
            server = servers.ours("mnist-undercomplete")
            with servers.run(server, Path(sys.executable), request, (0,)) as running:
                ready.append(running.ready_after)
                memory.append(running.pss())
        measured: Metrics = {"ready": statistics.median(ready), "pss": statistics.median(memory)}
        print(f"  ready after {measured['ready']:.2f} s, {measured['pss']:.0f} MB")
        measured["opening"] = self._in_child("benchmarks.serving.session_start", "models")
        return measured

    def _singles(self, net: str, image: bytes, kind: str, batches: Sequence[int]) -> Metrics:
        """One image a request: every server, then the limits."""
        rounds: dict[str, list[Metrics]] = {}
        for _ in range(self.rounds):
            for server in (servers.ours(net), *servers.peers(), *servers.limits()):
                rounds.setdefault(server.name, []).append(
                    self._serve(server, net, image, kind, CONNECTIONS)
                )
        measured = {name: take_medians(each) for name, each in rounds.items()}
        return measured | {"limits": self._limits(self.graphs[net], image, batches)}

    def _serve(
        self, server: Server, net: str, image: bytes, kind: str, connections: Sequence[int]
    ) -> Metrics:
        request = server.ask(image, kind)
        with self._running(server, net, request) as running:
            self._check(server, net, image, load.send(request, PORT))
            self._load(running, request, 8, 1.0)
            metrics: Metrics = {
                str(count): self._load(running, request, count) for count in connections
            }
            metrics |= {"ready": running.ready_after, "pss": running.pss()}
        loads = {count: metrics[str(count)] for count in connections}
        shown = "  ".join(
            f"{count}: {each['rate']:,.0f}/s, p50 {each['p50'] * 1000:.2f} ms"
            for count, each in loads.items()
        )
        print(f"  {server.name:18} {shown}", flush=True)
        return metrics

    def _bulk(
        self,
        server: Server,
        ways: Mapping[str, Bulk],
        pixels: np.ndarray,
        images: Sequence[bytes],
        expected: np.ndarray | None = None,
    ) -> Metrics:
        """Images a second, by number of images in a request and by format.

        Raises RuntimeError if responses differ from the expected scores.
        """
        measured: Metrics = {}
        sample = server.ask(images[0], "image/png")
        with self._running(server, "digits", sample, BULK="1") as running:
            for count, (way, make) in itertools.product(BULK_IMAGES, ways.items()):
                request = make(pixels[:count], images[:count])
                response = load.send(request, PORT)
                if expected is not None and not np.allclose(
                    servers.parse_scores(response), expected[:count], rtol=1e-4
                ):
                    raise RuntimeError(
                        f"{server.name} and the bare session score {count} images in {way}"
                        " differently"
                    )
                self._load(running, request, 2, 0.5)
                measured[f"{count} {way}"] = self._load(running, request, 2)["rate"] * count
        shown = "  ".join(f"{name}: {rate:,.0f}/s" for name, rate in measured.items())
        print(f"  {server.name:18} {shown}", flush=True)
        return measured

    def _check(self, server: Server, net: str, image: bytes, response: bytes) -> None:
        """Raise RuntimeError if a server's score is not the bare session's."""
        if server.name.startswith("empty"):
            return
        spec = networks.NETS[net].spec
        decoded = Image.open(io.BytesIO(image)).convert("L" if spec.channels == 1 else "RGB")
        if decoded.size != (spec.width, spec.height):
            return  # each server resizes in its own way
        (expected,) = self._scores(net, np.asarray(decoded).reshape(1, *spec.shape))
        (score,) = servers.parse_scores(response)
        if not np.isclose(score, expected, rtol=1e-4):
            raise RuntimeError(f"{server.name} returns {score}, but the bare session {expected}")

    def _scores(self, net: str, pixels: np.ndarray) -> np.ndarray:
        """Scores of the bare session."""
        session = onnxruntime.InferenceSession(self.graphs[net], providers=["CPUExecutionProvider"])
        scores: np.ndarray = session.run(["scores"], {"images": pixels})[0]
        return scores

    def _ours(
        self, net: str, cores: Sequence[int] = (0,), **environment: str
    ) -> AbstractContextManager[RunningServer]:
        server, spec = servers.ours(net), networks.NETS[net].spec
        sample = server.ask(draw_picture(spec.height, spec.width, "PNG"), "image/png")
        return self._running(server, net, sample, cores, **environment)

    def _running(
        self,
        server: Server,
        net: str,
        sample: Request,
        cores: Sequence[int] = (0,),
        **environment: str,
    ) -> AbstractContextManager[RunningServer]:
        python = servers.install(server, self.environments)
        common = {
            "AE_MODELS": str(self.models),
            "MODEL": str(self.graphs[net]),
            "AE_LOG_FORMAT": "json",
        }
        return servers.run(server, python, sample, cores, **common, **environment)

    def _median(
        self, running: RunningServer, request: Request, connections: Sequence[int]
    ) -> Metrics:
        return take_medians(
            [
                {str(count): self._load(running, request, count) for count in connections}
                for _ in range(self.rounds)
            ]
        )

    def _load(
        self, running: RunningServer, request: Request, connections: int, seconds: float = 0.0
    ) -> Metrics:
        began = running.cpu()
        responses: Responses = load.run(request, PORT, connections, seconds or self.seconds)
        return {
            "rate": responses.rate,
            "p50": responses.percentile(50),
            "p99": responses.percentile(99),
            "cpu": (running.cpu() - began) / sum(responses.statuses.values()),
            "statuses": dict(responses.statuses),
        }

    def _limits(
        self, graph: Path, image: bytes, batches: Sequence[int], cores: Sequence[int] = (0,)
    ) -> Metrics:
        """Seconds of decoding and of the bare session."""
        path = self.models.parent / "image"
        path.write_bytes(image)
        return self._in_child(
            "benchmarks.serving.limits",
            str(graph),
            str(path),
            str(len(cores)),
            "1",
            *map(str, batches),
            cores=cores,
        )

    def _in_child(self, module: str, *arguments: str, cores: Sequence[int] = (0,)) -> Metrics:
        """Metrics that a module measures on the server's cores, while this process is busy."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        while len(cores) == 1 and process.poll() is None:
            pass
        printed, _ = process.communicate()
        measured: Metrics = json.loads(printed)
        print(f"  {module.rpartition('.')[2]}: {printed.strip()}", flush=True)
        return measured


def take_medians(rounds: Sequence[Metrics]) -> Metrics:
    """The median of each metric over the rounds; sums of statuses."""
    merged: Metrics = {}
    for key, value in rounds[0].items():
        values = [each[key] for each in rounds]
        if key == "statuses":
            merged[key] = {
                status: sum(each.get(status, 0) for each in values)
                for status in set().union(*values)
            }
        else:
            nested = isinstance(value, dict)
            merged[key] = take_medians(values) if nested else statistics.median(values)
    return merged


if __name__ == "__main__":
    main()
