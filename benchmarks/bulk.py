"""Score many files in bulk: images a second beside the bare session's, and what a kill in the middle leaves behind.

    python -m benchmarks.bulk --data DIR [--model mnist-vae] [--images 20000]

The test digits are written as PNG files, as often as it takes. The bare session runs the same graphs on the same images
as arrays, in batches of 256 and with ONNX Runtime's own choice of threads. Results go to docs/results/bulk.json.
"""

import argparse
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from bundle import imaging
from bundle.manifest import InputSpec
from bundle.tensors import Images
from training.data import mnist
from training.export.published import load_newest

KILLED_AT = 40  # percent
MAX_PIXELS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bulk", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where MNIST is; without it, it is downloaded"
    )
    parser.add_argument(
        "--model", default="mnist-vae", metavar="NAME", help="of digits (%(default)s)"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument("--images", type=int, default=20_000, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/results/bulk.json"), metavar="JSON"
    )
    options = parser.parse_args()
    model = load_newest(options.models, options.model)
    digits = mnist.load_test("mnist", options.data).images
    images = digits[np.arange(options.images) % len(digits)]
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work)
        _write(images, directory / "digits")
        found = {
            "model": options.model,
            "images": len(images),
            "cores": os.cpu_count(),
            "bare": _rate(
                images,
                lambda: model.graphs.chain_in_batches(
                    model.graphs.scoring, ["scores"], images=images
                ),
            ),
            "decoding": _rate(images, lambda: _decode(directory / "digits", model.manifest.input)),
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
        found["bulk"] = _told_rate(done.stdout)
        found |= _killed([*command, str(directory / "killed.csv")], directory)
    print(json.dumps(found, indent=1))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _write(images: Images, directory: Path) -> None:
    directory.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(directory / f"{index:06}.png")


def _rate(images: Images, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return len(images) / (time.perf_counter() - began)


def _decode(directory: Path, spec: InputSpec) -> None:
    for path in sorted(directory.iterdir()):
        imaging.decode(path.read_bytes(), spec, MAX_PIXELS)


def _killed(command: list[str], directory: Path) -> dict[str, object]:
    """Kill the command in its middle, and give it again."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    shown = b""
    while not any(int(share) >= KILLED_AT for share in re.findall(rb"(\d+)%", shown)):
        shown = os.read(process.stderr.fileno(), 4096)
        assert shown, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
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


def _told_rate(text: str) -> float:
    return float(re.findall(r"([\d,]+) images a second", text)[0].replace(",", ""))


if __name__ == "__main__":
    main()
