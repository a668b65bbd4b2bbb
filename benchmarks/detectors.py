"""Compare detectors by requests a second over HTTP, with one photograph a request.

    python -m benchmarks.detectors PHOTOGRAPH MODELS/NAME ... [--connections N ...] [--rounds N]
                                   [--seconds S]

Each detector is served alone, on all cores, which the load shares. Every round loads each detector
once. The medians over the rounds, and their ratios to the first detector, are printed. An older
bundle comes from `git archive COMMIT models/NAME`.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.serving import load, servers
from benchmarks.serving.load import Request

Rates = dict[int, float]  # requests a second, by connections
Measure = Callable[[Path, bytes, list[int], float], Rates]


def measure_rates(
    detector: Path, photograph: bytes, connections: list[int], seconds: float
) -> Rates:
    """Load a service that holds this detector alone, for some seconds at each of `connections`."""
    server, cores = servers.ours(detector.name), sorted(os.sched_getaffinity(0))
    request = Request(f"/v1/models/{detector.name}/anomaly-score", "image/jpeg", photograph)
    with tempfile.TemporaryDirectory() as models:
        (Path(models) / detector.name).symlink_to(detector.resolve(), target_is_directory=True)
        with servers.run(server, Path(sys.executable), request, cores, AE_MODELS=models):
            return {
                count: load.run(request, servers.PORT, count, seconds).rate for count in connections
            }


def main(arguments: Sequence[str] | None = None, measure: Measure = measure_rates) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detectors", description=__doc__.splitlines()[0]
    )
    parser.add_argument("photograph", type=Path, metavar="PHOTOGRAPH", help="a JPEG")
    parser.add_argument(
        "detectors", type=Path, nargs="+", metavar="MODELS/NAME", help="the first is the reference"
    )
    parser.add_argument(
        "--connections", type=int, nargs="+", default=[1, 16], metavar="N", help="(1 16)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=8, metavar="S", help="of each load (%(default)s)"
    )
    options = parser.parse_args(arguments)
    photograph = options.photograph.read_bytes()
    rates: dict[tuple[Path, int], list[float]] = {}
    for _ in range(options.rounds):
        for detector in options.detectors:
            for connections, rate in measure(
                detector, photograph, options.connections, options.seconds
            ).items():
                rates.setdefault((detector, connections), []).append(rate)
    for connections in options.connections:
        first = statistics.median(rates[options.detectors[0], connections])
        for detector in options.detectors:
            rate = statistics.median(rates[detector, connections])
            print(
                f"{detector}, {connections} connections: {rate:.1f} requests a second,"
                f" {rate / first:.2f} times"
            )


if __name__ == "__main__":
    main()
