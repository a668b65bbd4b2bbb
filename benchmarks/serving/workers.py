"""Two workers compared with one, and with two processes of their own, on the same two cores.

    python -m benchmarks.serving.workers [--models DIR] [--seconds 2] [--rounds 10]
                                         [--connections 8]

All services run at the same time, and one after the other is loaded, with as many connections for
each process, because requests that arrive together cost less. With more than two cores, the load
comes from the others, and the rates show what a second worker adds. With two cores, the load shares
them, so that only the CPU time of a request can be compared. USS is the memory that a process
shares with no other.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving import load, servers
from benchmarks.serving.bodies import draw_picture
from benchmarks.serving.load import Request
from benchmarks.serving.servers import RunningServer

OUTPUT = Path("docs/results/workers.json")
CORES = (0, 1)  # of the server
ONE, TWO, APART = "1 worker", "2 workers", "2 processes"
CASES = {ONE: (1, [8230]), TWO: (2, [8231]), APART: (1, [8232, 8233])}  # workers, and ports
METRICS = ("rate", "p50", "p99", "cpu")
RATIOS = (("rate", ONE), ("cpu", ONE), ("cpu", APART))
REQUESTS = {
    "digits": ("mnist-vae", "image/png", (28, 28, "PNG")),
    "photographs": ("cookies", "image/jpeg", (256, 256, "JPEG")),
}
Metrics = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.workers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--models", default="models", metavar="DIR", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--connections", type=int, default=8, help="of each process (%(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="JSON", help="(%(default)s)")
    options = parser.parse_args(arguments)
    rest = os.sched_getaffinity(0) - {*CORES}
    os.sched_setaffinity(0, rest or CORES)
    results: Metrics = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_shares_cores": not rest,
        "connections_of_each_process": options.connections,
    }
    for name in REQUESTS:
        results[name] = _compare(name, options)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


def _compare(name: str, options: argparse.Namespace) -> Metrics:
    """Return the medians of each case, and the medians of the ratios in each round."""
    with ExitStack() as stack:
        cases = {
            case: [
                stack.enter_context(_start(name, port, workers, options.models)) for port in ports
            ]
            for case, (workers, ports) in CASES.items()
        }
        pool = stack.enter_context(ProcessPoolExecutor(2))
        rounds = [
            {case: _measure(case, name, each, pool, options) for case, each in cases.items()}
            for _ in range(options.rounds + 1)
        ][1:]  # the first is to warm up
        uss = {case: [_read_uss(each) for each in running] for case, running in cases.items()}
    metrics: Metrics = {
        case: {
            **{key: statistics.median(each[case][key] for each in rounds) for key in METRICS},
            "uss_megabytes": [value for values in uss[case] for value in values],
        }
        for case in CASES
    }
    metrics["ratios"] = {
        f"{key}, {TWO} to {other}": statistics.median(
            each[TWO][key] / each[other][key] for each in rounds
        )
        for key, other in RATIOS
    }
    print(f"{name}: {json.dumps(metrics, indent=1)}", flush=True)
    return metrics


@contextmanager
def _start(name: str, port: int, workers: int, models: str) -> Iterator[RunningServer]:
    """Start a service, and wait until each of its processes listens."""
    environment = {"AE_MODELS": models, "AE_WORKERS": str(workers)}
    server, request = servers.ours(REQUESTS[name][0], port=port), _ask(name)
    with servers.run(server, Path(sys.executable), request, CORES, **environment) as running:
        while len(_list_workers(running)) < workers:
            pass
        yield running


def _ask(name: str) -> Request:
    model, media_type, picture = REQUESTS[name]
    return servers.ours(model).ask(draw_picture(*picture), media_type)


def _measure(
    case: str,
    name: str,
    running: Sequence[RunningServer],
    pool: ProcessPoolExecutor,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Load the processes of a case at the same time."""
    workers, ports = CASES[case]
    began = sum(each.cpu() for each in running)
    loads = [
        pool.submit(load.run, _ask(name), port, options.connections, options.seconds)
        for port in ports * workers
    ]
    responses = [each.result() for each in loads]
    count = sum(sum(each.statuses.values()) for each in responses)
    return {
        "rate": sum(each.rate for each in responses),
        "p50": max(each.percentile(50) for each in responses),
        "p99": max(each.percentile(99) for each in responses),
        "cpu": (sum(each.cpu() for each in running) - began) / count,
    }


def _read_uss(running: RunningServer) -> list[float]:
    return [each.memory_full_info().uss / 1e6 for each in _list_workers(running)]


def _list_workers(running: RunningServer) -> list[psutil.Process]:
    """Return the processes of a service that listen."""
    server = running.process
    return [each for each in [server, *server.children()] if _listens(each)]


def _listens(process: psutil.Process) -> bool:
    return any(each.status == psutil.CONN_LISTEN for each in process.net_connections("tcp"))


if __name__ == "__main__":
    main()
