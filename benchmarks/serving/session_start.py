"""Measure the time that optimised graphs would save at the start.

    python -m benchmarks.serving.session_start MODELS

Prints JSON: the number of graphs, and for plain and optimised graphs the seconds to open them, in
the best round, and their bytes.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

ROUNDS = 5


def main() -> None:
    """Run the command."""
    # Otherwise it warns of optimisations that suit this machine alone.
    onnxruntime.set_default_logger_severity(3)
    plain = sorted(Path(sys.argv[1]).glob("*/*/*.onnx"))
    with tempfile.TemporaryDirectory() as directory:
        optimised = [Path(directory) / f"{number}.onnx" for number in range(len(plain))]
        for source, target in zip(plain, optimised, strict=True):
            _open(source, GraphOptimizationLevel.ORT_ENABLE_ALL, target)
        results = {
            "graphs": len(plain),
            "plain": _measure(plain, GraphOptimizationLevel.ORT_ENABLE_ALL),
            "optimised": _measure(optimised, GraphOptimizationLevel.ORT_DISABLE_ALL),
        }
    print(json.dumps(results))


def _measure(graphs: Sequence[Path], level: GraphOptimizationLevel) -> dict[str, float]:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for graph in graphs:
            _open(graph, level)
        best = min(best, time.perf_counter() - began)
    return {"seconds": best, "bytes": sum(graph.stat().st_size for graph in graphs)}


def _open(graph: Path, level: GraphOptimizationLevel, target: Path | None = None) -> None:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    if target:
        options.optimized_model_filepath = str(target)
    InferenceSession(graph, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
