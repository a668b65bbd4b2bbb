"""Measure the least time of a request: decoding with Pillow alone, and the bare session.

    python -m benchmarks.serving.limits GRAPH IMAGE THREADS SECONDS BATCH...

Prints JSON: seconds of decoding, and seconds of a run by batch size; medians.
"""

import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def main() -> None:
    """Run the command."""
    graph, picture, threads, seconds, *batches = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape[1:]
    body = Path(picture).read_bytes()
    mode = "L" if shape[-1] == 1 else "RGB"

    def decode() -> None:
        np.asarray(Image.open(io.BytesIO(body)).convert(mode))

    def score(size: int) -> Callable[[], object]:
        images = np.zeros((size, *shape), dtype=np.uint8)
        return lambda: session.run(None, {"images": images})

    each = float(seconds)
    runs = {size: _seconds(score(int(size)), each) for size in batches}
    print(json.dumps({"decode": _seconds(decode, each), "session": runs}))


def _seconds(work: Callable[[], object], seconds: float) -> float:
    work()
    taken, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
