"""A small model's latency beside a large model's load, on the same cores.

    python -m benchmarks.serving.fairness PHOTOGRAPH [--large NAME] [--small NAME] [--seconds S]

Sixteen connections ask the large detector to score a photograph, and four ask the small model to
encode a digit: each alone, then both together. Printed are requests a second and latencies.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.serving import load, servers
from benchmarks.serving.load import Request, Responses
from bundle.imaging import encode_png

LARGE_CONNECTIONS, SMALL_CONNECTIONS = 16, 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.fairness", description=__doc__.splitlines()[0]
    )
    parser.add_argument("photograph", type=Path, metavar="PHOTOGRAPH", help="a JPEG")
    parser.add_argument("--large", default="cookies", metavar="NAME", help="(%(default)s)")
    parser.add_argument("--small", default="mnist-vae", metavar="NAME", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="(%(default)s)")
    options = parser.parse_args(arguments)
    photograph = options.photograph.read_bytes()
    digit = encode_png(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))
    large = Request(f"/v1/models/{options.large}/anomaly-score", "image/jpeg", photograph)
    small = Request(f"/v1/models/{options.small}/encode", "image/png", digit)
    server, cores = servers.ours(options.large), sorted(os.sched_getaffinity(0))
    with (
        servers.run(server, Path(sys.executable), large, cores),
        ProcessPoolExecutor(2) as pool,
    ):
        loads = [(large, LARGE_CONNECTIONS), (small, SMALL_CONNECTIONS)]

        def run_together(chosen: list[tuple[Request, int]]) -> list[Responses]:
            runs = [
                pool.submit(load.run, request, servers.PORT, connections, options.seconds)
                for request, connections in chosen
            ]
            return [run.result() for run in runs]

        for each in loads:
            run_together([each])  # warm up
        for title, chosen in (("alone", [loads[0]]), ("alone", [loads[1]]), ("together", loads)):
            for (request, _), responses in zip(chosen, run_together(chosen), strict=True):
                print(f"{title:>9}  {request.path}: {_describe(responses)}", flush=True)


def _describe(responses: Responses) -> str:
    p50, p99, most = (1000 * responses.percentile(percent) for percent in (50, 99, 100))
    return (
        f"{responses.rate:.1f} a second, p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {most:.0f} ms"
    )


if __name__ == "__main__":
    main()
