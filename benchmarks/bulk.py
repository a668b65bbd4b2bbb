"""Score many files in bulk: images a second against the bare session, and rows after a kill.

    python -m benchmarks.bulk --data DIR [--model mnist-vae] [--images 20000]

The test digits are written as PNG files, repeated as necessary. The bare session runs the same
graphs on the same images as arrays, in batches of 256, with ONNX Runtime's default of threads.
Results go to docs/results/bulk.json.
"""

import argparse
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from bundle import imaging
from bundle.manifest import InputSpec
from bundle.tensors import Images
from training.data import mnist
from training.export.published import load_newest

KILL_PERCENT = 40  # of progress
MAX_PIXELS = 10_000


def main() -> None:
    """Run the command."""
    options = build_parser("bulk", __doc__).parse_args()
    model = load_newest(options.models, options.model)
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work)
        images = write_digits(options, directory / "digits")
        scoring, spec = model.graphs.scoring, model.manifest.input
        result = {
            "model": options.model,
            "images": len(images),
            "cores": os.cpu_count(),
            "bare": _measure_rate(
                images, lambda: model.graphs.chain_in_batches(scoring, ["scores"], images=images)
            ),
            "decoding": _measure_rate(images, lambda: _decode(directory / "digits", spec)),
        }
        command = [
            sys.executable,
            "-m",
            "service",
            "score",
            str(directory / "digits"),
            "--device",
            "cpu",
        ]
        command += ["--model", options.model, "--models", str(options.models), "--output"]
        done = subprocess.run(
            [*command, str(directory / "whole.csv")], capture_output=True, text=True, check=True
        )
        result["bulk"] = parse_rate(done.stdout)
        result |= _kill_and_resume([*command, str(directory / "killed.csv")], directory)
    write_result(result, options.output)


def build_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a benchmark of the bulk command."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}", description=description.splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of MNIST; without it, it is downloaded"
    )
    parser.add_argument(
        "--model", default="mnist-vae", metavar="NAME", help="of digits (%(default)s)"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument("--images", type=int, default=20_000, metavar="N", help="(%(default)s)")
    output = Path("docs/results") / f"{module.replace('_', '-')}.json"
    parser.add_argument("--output", type=Path, default=output, metavar="JSON")
    return parser


def write_digits(options: argparse.Namespace, directory: Path) -> Images:
    """Write the test digits as PNG files, repeated as necessary, and return their images."""
    digits = mnist.load_test("mnist", options.data).images
    images: Images = digits[np.arange(options.images) % len(digits)]
    directory.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(directory / f"{index:06}.png")
    return images


def write_result(result: Mapping[str, object], path: Path) -> None:
    """Print a result, and write it as JSON."""
    text = json.dumps(result, indent=1)
    print(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")


def _measure_rate(images: Images, work: Callable[[], object]) -> float:
    """Images a second."""
    began = time.perf_counter()
    work()
    return len(images) / (time.perf_counter() - began)


def _decode(directory: Path, spec: InputSpec) -> None:
    for path in sorted(directory.iterdir()):
        imaging.decode(path.read_bytes(), spec, MAX_PIXELS)


def _kill_and_resume(command: list[str], directory: Path) -> dict[str, object]:
    """Kill the command, run it again, and compare its rows with those of a whole run."""
    terminal, theirs = pty.openpty()  # because only a terminal shows progress
    termios.tcsetwinsize(theirs, (24, 200))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while not any(int(share) >= KILL_PERCENT for share in re.findall(rb"(\d+)%", shown)):
        try:
            shown = os.read(terminal, 4096)
        except OSError:
            raise AssertionError("the command ended before its kill: raise --images") from None
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.close(terminal)
    partial = directory / "killed.csv.partial"
    with closing(sqlite3.connect(partial)) as rows:
        (left,) = rows.execute("SELECT count(*) FROM rows").fetchone()
    subprocess.run(command, capture_output=True, check=True)
    whole, resumed = (
        (directory / f"{name}.csv").read_text().splitlines() for name in ("whole", "killed")
    )
    return {
        "rows_left": left,
        "rows_lost": len({*whole} - {*resumed}),
        "rows_doubled": len(resumed) - len({*resumed}),
        "left_over": partial.exists(),
    }


def parse_rate(text: str) -> float:
    """Return the images a second in the summary of the command."""
    return float(re.findall(r"([\d,]+) images a second", text)[0].replace(",", ""))


if __name__ == "__main__":
    main()
