"""Score files in bulk on Ray: one actor against the local engine, and rows after kills.

    python -m benchmarks.bulk_ray --data DIR [--model mnist-vae] [--images 20000]

The test digits are written as PNG files, repeated as necessary. Both engines score them by turns
with one thread of inference. The rate of the actor is from its first Parquet file to its last, and
start-up is the rest of the command's time. Then a run is killed three times at random, and an actor
once. Needs the extra `ray`. Results go to docs/results/bulk-ray.json.
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from pyarrow import dataset, parquet

from benchmarks import bulk
from service.bulk.ray_engine import BLOCKS_AT_ONCE

KILLS = 3
ACTOR = "ScoringActor"  # in the name of its process
# Ray's workers have a low priority by default, so other work on the machine would slow only them.
ENVIRONMENT = {**os.environ, "AE_THREADS": "1", "RAY_worker_niceness": "0"}


def main() -> None:
    """Run the command."""
    parser = bulk.build_parser("bulk_ray", __doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work)
        images = bulk.write_digits(options, directory / "digits")
        command = [sys.executable, "-m", "service", "score", str(directory / "digits")]
        command += ["--device", "cpu", "--model", options.model, "--models", str(options.models)]
        result: dict[str, Any] = {
            "model": options.model,
            "images": len(images),
            "cores": os.cpu_count(),
            "rounds": options.rounds,
        }
        result |= _measure_engines(command, directory, len(images), options.rounds)
        expected = {str(path) for path in (directory / "digits").iterdir()}
        result |= _kill_and_resume(command, directory / "killed", expected)
    bulk.write_result(result, options.output)


def _measure_engines(
    command: Sequence[str], directory: Path, images: int, rounds: int
) -> dict[str, Any]:
    """Return medians over rounds in which the engines take turns."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        table, folder = directory / f"{number}.csv", directory / f"{number}"
        local_seconds, shown = _run([*command, "--output", str(table)])
        local = bulk.parse_rate(shown)
        ray_seconds, _ = _run(_on_ray(command, folder))
        ray = _measure_rate(folder)
        measured = {
            "local": local,
            "ray": ray,
            "ray_over_local": ray / local,
            "local_start_seconds": local_seconds - images / local,
            "ray_start_seconds": ray_seconds - images / ray,
        }
        print(measured, flush=True)
        for name, value in measured.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def _run(command: Sequence[str]) -> tuple[float, str]:
    """Run a command. Returns its seconds, and its output."""
    began = time.monotonic()
    done = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    return time.monotonic() - began, done.stdout


def _on_ray(command: Sequence[str], folder: Path) -> list[str]:
    return [*command, "--engine", "ray", "--actors", "1", "--output", str(folder)]


def _measure_rate(folder: Path) -> float:
    """Return the images a second of an actor, from the end of its first block to the last.

    Blocks that had begun before are not counted.
    """
    files = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    images: int = sum(parquet.read_metadata(path).num_rows for path in files[BLOCKS_AT_ONCE:])
    return images / (files[-1].stat().st_mtime - files[0].stat().st_mtime)


def _kill_and_resume(command: Sequence[str], folder: Path, expected: set[str]) -> dict[str, object]:
    """Kill a run at random times, and then an actor, and compare the rows with the files."""
    moments, kept = random.Random(0), []
    for number in range(KILLS + 1):
        process = subprocess.Popen(_on_ray(command, folder), env=ENVIRONMENT)
        _await_new_file(folder, process)
        time.sleep(moments.uniform(0, 1))
        if number == KILLS:
            _kill_actor(process.pid)
            break
        assert process.poll() is None, "the command ended before it could be killed: raise --images"
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.append(len([*folder.glob("*.parquet")]))
    assert process.wait() == 0
    rows = dataset.dataset(folder).to_table(columns=["path"])["path"].to_pylist()
    return {
        "kills": KILLS,
        "files_after_kills": kept,
        "rows_lost": len(expected - {*rows}),
        "rows_doubled": len(rows) - len({*rows}),
    }


def _await_new_file(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a run has written a file, which is when Ray and its actor have started.

    The actor of a killed run may still write a file, whose name begins like its others.
    """
    before = _find_runs(folder)
    while not _find_runs(folder) - before:
        assert process.poll() is None, "the command ended before it could be killed: raise --images"
        time.sleep(0.01)


def _find_runs(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in folder.glob("*.parquet")}


def _kill_actor(process: int) -> None:
    (actor,) = (
        child
        for child in psutil.Process(process).children(recursive=True)
        if ACTOR in " ".join(child.cmdline())
    )
    actor.kill()


if __name__ == "__main__":
    main()
