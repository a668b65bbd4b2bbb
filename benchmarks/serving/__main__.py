"""The service beside its peers and beside the limits of its machine, in one run.

    python -m benchmarks.serving [--only PART...] [--seconds 3] [--rounds 3] [--environments runs/peers]

Each server runs on core 0 and the load comes from core 1, but for the part `cores`, where all share both. The servers
take turns, and a figure is the median over the rounds. All load the same graph, and each must give the score of the
bare session before it is timed. The peers are installed, in the versions of `servers.py`, on the first run; it needs
the extras `cpu`, `training` and `benchmarks`, and for PyTriton a `/usr/bin/python3.11`.
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
from benchmarks.serving.bodies import picture
from benchmarks.serving.load import Answers, Request
from benchmarks.serving.servers import PORT, Bulk, Running, Server
from bundle import imaging

OUTPUT = Path("docs/results/serving.json")
PARTS = ("digits", "photos", "bulk", "cores", "large", "overload", "start")
CONNECTIONS = (1, 16, 64)
BATCHES = (32, 256)
Figures = dict[str, Any]


def main() -> None:
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
    results: Figures = json.loads(options.output.read_text()) if options.output.is_file() else {}
    results["machine"] = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {platform.platform()}"
    )
    bench = Bench(options.work, options.environments, options.seconds, options.rounds)
    for part in options.only:
        print(f"{part}:", flush=True)
        results[part] = getattr(bench, part)()
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


class Bench:
    """Each part gives its figures; times are in seconds, memory in megabytes."""

    def __init__(self, work: Path, environments: Path, seconds: float, rounds: int) -> None:
        self.models, self.environments = (work / "models").resolve(), environments.resolve()
        self.seconds, self.rounds = seconds, rounds
        self.graphs = {name: networks.write(name, self.models) for name in networks.NETS}

    def digits(self) -> Figures:
        return self._singles("digits", picture(28, 28, "PNG"), "image/png", batches=(1, 16, 64))

    def photos(self) -> Figures:
        return self._singles("photos", picture(256, 256, "JPEG"), "image/jpeg", batches=(1, 16))

    def bulk(self) -> Figures:
        """Many images a request of the small network, two requests at a time: one is read while the other runs."""
        spec = networks.NETS["digits"].spec
        pixels = np.random.default_rng(1).integers(0, 256, (256, *spec.shape), dtype=np.uint8)
        images = [imaging.encode_png(image) for image in pixels]
        expected = self._scores("digits", pixels)
        rounds: dict[str, list[Figures]] = {}
        for _ in range(self.rounds):
            for server in (servers.ours("digits"), *servers.peers()):
                rounds.setdefault(server.name, []).append(
                    self._bulk(server, server.bulk, pixels, images, expected)
                )
            encode = servers.our_bulk("/v1/models/digits/encode")
            rounds.setdefault("encode", []).append(
                self._bulk(servers.ours("digits"), encode, pixels, images)
            )
        image, encoder = picture(28, 28, "PNG"), self.models / "digits" / "1" / "encoder.onnx"
        limits = {
            "anomaly-score": self._limits(self.graphs["digits"], image, BATCHES),
            "encode": self._limits(encoder, image, BATCHES),
        }
        return {name: medians(each) for name, each in rounds.items()} | {"limits": limits}

    def cores(self) -> Figures:
        """Both cores for the server, which shares them with the load."""
        image = picture(256, 256, "JPEG")
        found: Figures = {
            "limits": self._limits(self.graphs["photos"], image, (1, 16), cores=(0, 1))
        }
        request = servers.ours("photos").ask(image, "image/jpeg")
        with self._ours("photos", cores=(0, 1)) as running:
            found |= self._median(running, request, (16,))
        print(f"  {found['16']['rate']:.1f} requests a second")
        return found

    def large(self) -> Figures:
        """A photograph of twelve megapixels, against a peer that decodes it whole."""
        image = picture(3000, 4000, "JPEG")
        found: Figures = {}
        for server in (servers.ours("photos"), servers.peers()[0]):
            found[server.name] = self._serve(server, "photos", image, "image/jpeg", (1, 4))
        return found

    def overload(self) -> Figures:
        """A minute at 64 connections, then ten times as many, with room for 64 images in flight."""
        request = servers.ours("digits").ask(picture(28, 28, "PNG"), "image/png")
        with self._ours("digits", AE_MAX_IMAGES="64", AE_MAX_QUEUED_IMAGES="64") as running:
            found = {str(count): self._load(running, request, count, 60) for count in (64, 640)}
        for count, figures in found.items():
            print(
                f"  {count} connections: p99 {figures['p99'] * 1000:.1f} ms, statuses {figures['statuses']}"
            )
        return found

    def start(self) -> Figures:
        """The shipped models."""
        request = Request(
            "/v1/models/mnist-undercomplete/anomaly-score", "image/png", picture(28, 28, "PNG")
        )
        ready, memory = [], []
        for _ in range(self.rounds):
            server = servers.ours("mnist-undercomplete")
            with servers.running(server, Path(sys.executable), request, (0,)) as running:
                ready.append(running.ready_after)
                memory.append(running.pss())
        found: Figures = {"ready": statistics.median(ready), "pss": statistics.median(memory)}
        print(f"  ready after {found['ready']:.2f} s, {found['pss']:.0f} MB")
        found["opening"] = self._in_child("benchmarks.serving.session_start", "models")
        return found

    def _singles(self, net: str, image: bytes, kind: str, batches: Sequence[int]) -> Figures:
        """One image a request: every server in turn, then the limits."""
        rounds: dict[str, list[Figures]] = {}
        for _ in range(self.rounds):
            for server in (servers.ours(net), *servers.peers(), *servers.limits()):
                rounds.setdefault(server.name, []).append(
                    self._serve(server, net, image, kind, CONNECTIONS)
                )
        found = {name: medians(each) for name, each in rounds.items()}
        return found | {"limits": self._limits(self.graphs[net], image, batches)}

    def _serve(
        self, server: Server, net: str, image: bytes, kind: str, connections: Sequence[int]
    ) -> Figures:
        request = server.ask(image, kind)
        with self._running(server, net, request) as running:
            self._check(server, net, image, load.ask(request, PORT))
            self._load(running, request, 8, 1.0)
            figures: Figures = {
                str(count): self._load(running, request, count) for count in connections
            }
            figures |= {"ready": running.ready_after, "pss": running.pss()}
        shown = "  ".join(
            f"{count}: {figures[str(count)]['rate']:,.0f}/s, p50 {figures[str(count)]['p50'] * 1000:.2f} ms"
            for count in connections
        )
        print(f"  {server.name:18} {shown}", flush=True)
        return figures

    def _bulk(
        self,
        server: Server,
        ways: Mapping[str, Bulk],
        pixels: np.ndarray,
        images: Sequence[bytes],
        expected: np.ndarray | None = None,
    ) -> Figures:
        """Images a second, by how many a request holds and how; the answers must be the expected scores, if any."""
        found: Figures = {}
        sample = server.ask(images[0], "image/png")
        with self._running(server, "digits", sample, BULK="1") as running:
            for count, (way, make) in itertools.product(BATCHES, ways.items()):
                request = make(pixels[:count], images[:count])
                answer = load.ask(request, PORT)
                if expected is not None and not np.allclose(
                    servers.scores(answer), expected[:count], rtol=1e-4
                ):
                    raise RuntimeError(
                        f"{server.name} scores {count} images in {way} other than the bare session does"
                    )
                self._load(running, request, 2, 0.5)
                found[f"{count} {way}"] = self._load(running, request, 2)["rate"] * count
        shown = "  ".join(f"{what}: {rate:,.0f}/s" for what, rate in found.items())
        print(f"  {server.name:18} {shown}", flush=True)
        return found

    def _check(self, server: Server, net: str, image: bytes, answer: bytes) -> None:
        """Raise RuntimeError where a server's score is not that of the bare session."""
        if server.name.startswith("empty"):
            return
        spec = networks.NETS[net].spec
        decoded = Image.open(io.BytesIO(image)).convert("L" if spec.channels == 1 else "RGB")
        if decoded.size != (spec.width, spec.height):
            return  # resized in ways of their own
        (expected,) = self._scores(net, np.asarray(decoded).reshape(1, *spec.shape))
        (score,) = servers.scores(answer)
        if not np.isclose(score, expected, rtol=1e-4):
            raise RuntimeError(f"{server.name} gives {score}, the bare session {expected}")

    def _scores(self, net: str, pixels: np.ndarray) -> np.ndarray:
        """Those of the bare session."""
        session = onnxruntime.InferenceSession(self.graphs[net], providers=["CPUExecutionProvider"])
        scores: np.ndarray = session.run(["scores"], {"images": pixels})[0]
        return scores

    def _ours(
        self, net: str, cores: Sequence[int] = (0,), **environment: str
    ) -> AbstractContextManager[Running]:
        server, spec = servers.ours(net), networks.NETS[net].spec
        sample = server.ask(picture(spec.height, spec.width, "PNG"), "image/png")
        return self._running(server, net, sample, cores, **environment)

    def _running(
        self,
        server: Server,
        net: str,
        sample: Request,
        cores: Sequence[int] = (0,),
        **environment: str,
    ) -> AbstractContextManager[Running]:
        python = servers.python_of(server, self.environments)
        places = {
            "AE_MODELS": str(self.models),
            "MODEL": str(self.graphs[net]),
            "AE_LOG_FORMAT": "json",
        }
        return servers.running(server, python, sample, cores, **places, **environment)

    def _median(self, running: Running, request: Request, connections: Sequence[int]) -> Figures:
        return medians(
            [
                {str(count): self._load(running, request, count) for count in connections}
                for _ in range(self.rounds)
            ]
        )

    def _load(
        self, running: Running, request: Request, connections: int, seconds: float = 0.0
    ) -> Figures:
        began = running.cpu()
        answers: Answers = load.run(request, PORT, connections, seconds or self.seconds)
        return {
            "rate": answers.rate,
            "p50": answers.percentile(50),
            "p99": answers.percentile(99),
            "cpu": (running.cpu() - began) / sum(answers.statuses.values()),
            "statuses": dict(answers.statuses),
        }

    def _limits(
        self, graph: Path, image: bytes, batches: Sequence[int], cores: Sequence[int] = (0,)
    ) -> Figures:
        """Decoding and the bare session."""
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

    def _in_child(self, module: str, *arguments: str, cores: Sequence[int] = (0,)) -> Figures:
        """What a module prints on the server's cores, while this process keeps its own as busy as a load does."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        while len(cores) == 1 and process.poll() is None:
            pass
        told, _ = process.communicate()
        found: Figures = json.loads(told)
        print(f"  {module.rpartition('.')[2]}: {told.strip()}", flush=True)
        return found


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure; of statuses the sums."""
    merged: Figures = {}
    for key, value in rounds[0].items():
        values = [each[key] for each in rounds]
        if key == "statuses":
            merged[key] = {
                status: sum(each.get(status, 0) for each in values)
                for status in set().union(*values)
            }
        else:
            merged[key] = medians(values) if isinstance(value, dict) else statistics.median(values)
    return merged


if __name__ == "__main__":
    main()
