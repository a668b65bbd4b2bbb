"""Parity between ONNX Runtime and torch: measured differences of every output."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from bundle import imaging
from bundle.manifest import GraphName, InputSpec
from bundle.tensors import Images, TensorName, Tensors
from training.errors import ParityError
from training.export.graph_modules import Graph
from training.export.graph_runner import Graphs

PARITY_BATCH_SIZES = (1, 2, 7, 64)
FLOAT_TOLERANCE = 1e-5
OTHER_TOLERANCES: Mapping[str, float] = {
    "reconstructions": 1.0,  # one step of an uint8
    "logits": 1e-4,  # their values are 10 and more
    "latent_distances": 1e-3,  # their logarithms amplify differences of small distances
}
DETECTOR_TOLERANCE = 1e-3  # of scores and maps, in standard deviations of normal images


def resize_every_second(samples: Images, spec: InputSpec) -> Images:
    """Images of which every second was enlarged by half and resized back, as in a request."""
    images = samples.copy()
    for image in images[1::2]:
        larger = imaging.resize(image, (spec.height * 3 // 2, spec.width * 3 // 2), spec)
        image[:] = imaging.fit(larger, spec)
    return images


def measure(
    graphs: Mapping[GraphName, Graph],
    exported: Graphs,
    images: Images,
    tolerances: Mapping[str, float] = {},
    max_batch: int = max(PARITY_BATCH_SIZES),
) -> dict[str, float]:
    """The largest difference of each output from torch, at batch sizes up to `max_batch`.

    Raises ParityError if a difference is above its tolerance.
    """
    outputs = [name for graph in graphs.values() for name in graph.outputs]
    largest: dict[str, float] = dict.fromkeys(outputs, 0.0)
    for size in sorted({min(size, max_batch) for size in PARITY_BATCH_SIZES}):
        expected: Tensors = {"images": images[:size]}
        for graph in graphs.values():
            expected |= _run_torch(graph, expected)
        actual = exported.chain(graphs, images=images[:size])
        differences = find_differences(expected, actual, outputs)
        # np.maximum, because max would lose a NaN.
        largest = {name: float(np.maximum(largest[name], differences[name])) for name in outputs}
    allowed = {**OTHER_TOLERANCES, **tolerances}
    check(largest, {name: allowed.get(name, FLOAT_TOLERANCE) for name in outputs}, "torch")
    return largest


def find_differences(
    expected: Tensors, actual: Tensors, names: Iterable[TensorName]
) -> dict[str, float]:
    """The largest difference of each output; if floats exceed 1, relative to the largest."""
    largest: dict[str, float] = {}
    for name in names:
        reference = expected[name].astype(np.float64)
        integers = expected[name].dtype == np.uint8
        scale = 1.0 if integers else max(1.0, float(np.abs(reference).max()))
        largest[name] = float(np.abs(actual[name].astype(np.float64) - reference).max() / scale)
    return largest


def check(
    differences: Mapping[str, float], tolerances: Mapping[str, float], reference: str
) -> None:
    """Raise ParityError if a difference is above its tolerance, or is NaN."""
    for name, difference in differences.items():
        if not difference <= tolerances[name]:
            raise ParityError(
                f"{name} differs from {reference} by {difference:.3g};"
                f" at most {tolerances[name]} is allowed"
            )


@torch.no_grad()
def _run_torch(graph: Graph, arrays: Tensors) -> Tensors:
    results = graph.module(*(torch.from_numpy(arrays[name]) for name in graph.arguments))
    results = results if isinstance(results, tuple) else (results,)
    return {name: result.numpy() for name, result in zip(graph.outputs, results, strict=True)}
