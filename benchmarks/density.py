"""Measure one process with many detectors on one backbone: start, memory, threads, latency, rate.

    python -m benchmarks.density PHOTOGRAPH [--bundle models/cookies/5] [--seconds 5]
                                 [--output docs/results/density.json]

Each detector is the bundle under another name. Its scorer has a digest of its own, so that its
weights are in memory once more; the encoder is shared. The server runs on core 0, and the load
comes from core 1. It needs 2 GB of disk for a scorer of 7 MB.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import onnx

from benchmarks.serving import load, servers
from benchmarks.serving.load import Request
from benchmarks.serving.servers import PORT, RunningServer
from bundle.manifest import MANIFEST, ModelManifest, compute_sha256

COUNTS = (1, 50, 200, 1000)
MANY = 200  # detectors that are all opened, and have scorers of their own
ROOM = 40  # of them, for the mix
CONNECTIONS, ROUNDS = 16, 3
ZIPF_EXPONENT = 1.0
Metrics = dict[str, Any]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.density", description=__doc__.splitlines()[0]
    )
    parser.add_argument("photograph", type=Path, metavar="PHOTOGRAPH")
    parser.add_argument(
        "--bundle", type=Path, default=Path("models/cookies/5"), help="(%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (%(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/results/density.json"), metavar="JSON"
    )
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), options.bundle, options.photograph, options.seconds)
        results = bench.run()
    recorded: Metrics = json.loads(options.output.read_text()) if options.output.is_file() else {}
    recorded[f"{options.bundle.parent.name} {options.bundle.name}"] = results
    options.output.write_text(json.dumps(recorded, indent=1) + "\n")


class Bench:
    """Servers of many detectors, and their metrics in seconds and megabytes."""

    def __init__(self, directory: Path, bundle: Path, photograph: Path, seconds: float) -> None:
        self.directory, self.bundle, self.seconds = directory, bundle, seconds
        self.image = photograph.read_bytes()
        self.media_type = "image/png" if photograph.suffix == ".png" else "image/jpeg"
        self.scorer = ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes()).graphs[
            "scorer"
        ]

    def run(self) -> Metrics:
        """Measure each part."""
        sizes = {path.name: path.stat().st_size / 1e6 for path in self.bundle.glob("*.onnx")}
        results: Metrics = {"graphs_mb": sizes, "start": {}}
        for count in COUNTS:
            models = self.write(count)
            with self.serve(models) as running:
                results["start"][count] = self.show(f"{count} listed", describe(running))
            if count == MANY:
                results["all_open"] = self.open_all(models)
                results["hot"] = self.compare_rates(models)
                results["mix"] = self.mix(models, results["all_open"]["mb_each"])
            shutil.rmtree(models)
        return results

    def open_all(self, models: Path) -> Metrics:
        """First requests to all detectors."""
        with self.serve(models) as running:
            before = read_metric("ae_model_bytes")
            cold = sorted(self.measure_request(number) for number in range(1, MANY))
            each = (read_metric("ae_model_bytes") - before) / 1e6 / (MANY - 1)
            hot = statistics.median(self.measure_request(0) for _ in range(50))
            latencies = {
                "first_p50": find_percentile(cold, 50),
                "first_p99": find_percentile(cold, 99),
            }
            found = describe(running) | latencies | {"hot_p50": hot, "mb_each": each}
        return self.show(f"{MANY} open", found)

    def compare_rates(self, models: Path) -> Metrics:
        """Requests a second to one detector that is alone or of many, and to 16 at once."""
        alone = self.write(1, "alone")
        rounds: list[Metrics] = []
        for _ in range(ROUNDS):
            with self.serve(alone):
                rates = {"one of one": self.measure_rate([0])}
            with self.serve(models):
                for number in range(MANY):
                    self.measure_request(number)
                rates["one of many"] = self.measure_rate([0])
                rates["sixteen of many"] = self.measure_rate(range(CONNECTIONS))
            rounds.append(rates)
        shutil.rmtree(alone)
        medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        return self.show(f"requests a second, {CONNECTIONS} connections", medians)

    def mix(self, models: Path, mb_each: float) -> Metrics:
        """A Zipf mix of requests to all detectors, with room for some, and with 300 MB."""
        results: Metrics = {}
        bounds = {f"room for {ROOM}": int(ROOM * mb_each * 1e6), "300 MB": 300_000_000}
        for name, bound in bounds.items():
            with self.serve(models, AE_MODEL_MEMORY=str(bound)) as running:
                requests = [self.choose(seed) for seed in range(CONNECTIONS)]
                responses = load.run_mix(requests, PORT, 4 * self.seconds)
                found = describe(running) | {
                    "rate": responses.rate,
                    "p50": responses.percentile(50),
                    "p99": responses.percentile(99),
                    "statuses": dict(responses.statuses),
                    "openings": read_metric("ae_model_loads_total"),
                    "open": read_metric("ae_open_models"),
                }
            results[name] = self.show(f"mix of {MANY}, {name}", found)
        return results

    def choose(self, seed: int) -> Iterator[bytes]:
        """Yield requests to detectors by a Zipf distribution."""
        weights = 1 / np.arange(1, MANY + 1) ** ZIPF_EXPONENT
        encoded = [self.ask(number).encode(PORT) for number in range(MANY)]
        generator = np.random.default_rng(seed)
        while True:
            yield encoded[generator.choice(MANY, p=weights / weights.sum())]

    def measure_rate(self, numbers: Sequence[int]) -> float:
        """Requests a second of 16 connections to some detectors in turn."""
        encoded = [self.ask(number).encode(PORT) for number in numbers]
        requests = [itertools.repeat(encoded[each % len(encoded)]) for each in range(CONNECTIONS)]
        load.run_mix(requests, PORT, 1.0)
        return load.run_mix(requests, PORT, self.seconds).rate

    def measure_request(self, number: int) -> float:
        """Seconds of one request."""
        began = time.perf_counter()
        load.send(self.ask(number), PORT)
        return time.perf_counter() - began

    def ask(self, number: int) -> Request:
        """Build the request to a detector."""
        return Request(f"/v1/models/part-{number:04}/anomaly-score", self.media_type, self.image)

    def serve(self, models: Path, **settings: str) -> AbstractContextManager[RunningServer]:
        """Start the service."""
        server, environment = servers.ours("part-0000"), {"AE_MODELS": str(models), **settings}
        return servers.run(server, Path(sys.executable), self.ask(0), (0,), **environment)

    def write(self, count: int, name: str = "models") -> Path:
        """Write detectors; those beyond `MANY` have the scorers of the first."""
        models = self.directory / name
        scorer = onnx.load(self.bundle / self.scorer)
        manifest = ModelManifest.model_validate_json((self.bundle / MANIFEST).read_bytes())
        for number in range(count):
            part = f"part-{number:04}"
            target = models / part / "1"
            target.mkdir(parents=True)
            for file in manifest.files.keys() - {self.scorer}:
                os.link(self._keep(file), target / file)
            own = target / self.scorer
            if number < MANY:
                del scorer.metadata_props[:]
                onnx.helper.set_model_props(scorer, {"part": part})
                own.write_bytes(scorer.SerializeToString())
            else:
                os.link(models / f"part-{number % MANY:04}" / "1" / self.scorer, own)
            files = {**manifest.files, self.scorer: compute_sha256(own)}
            changes = {"name": part, "version": 1, "files": files}
            (target / MANIFEST).write_text(manifest.model_copy(update=changes).model_dump_json())
        return models

    def _keep(self, file: str) -> Path:
        """Return a copy of a file of the bundle, on the file system of the detectors."""
        kept = self.directory / "kept" / file
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            shutil.copy(self.bundle / file, kept)
        return kept

    def show(self, name: str, metrics: Metrics) -> Metrics:
        """Print metrics, and return them."""
        rounded = {
            key: round(each, 4) if isinstance(each, float) else each
            for key, each in metrics.items()
        }
        print(f"{name}: {rounded}", flush=True)
        return metrics


def find_percentile(seconds: Sequence[float], percent: float) -> float:
    """Return a percentile of some times."""
    return float(np.percentile(seconds, percent))


def describe(running: RunningServer) -> Metrics:
    """Seconds until ready, memory (all, and without files) and threads of a server."""
    memory = running.process.memory_full_info()
    return {
        "ready": running.ready_after,
        "pss": memory.pss / 1e6,
        "uss": memory.uss / 1e6,
        "threads": running.process.num_threads(),
    }


def read_metric(name: str) -> float:
    """Return the sum of a metric of the server."""
    with urlopen(f"http://127.0.0.1:{PORT}/metrics") as response:
        text = response.read().decode()
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


if __name__ == "__main__":
    main()
