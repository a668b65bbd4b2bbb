"""The proof that ONNX Runtime answers as torch does."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from bundle import imaging
from bundle.manifest import GraphName, InputSpec
from bundle.tensors import Images, Tensors
from training.errors import ParityError
from training.export.graph_modules import Graph
from training.export.graph_runner import Graphs

PARITY_BATCHES = (1, 2, 7, 64)
FLOAT_TOLERANCE = 1e-5
OTHER_TOLERANCES: Mapping[str, float] = {
    "reconstructions": 1.0,  # one step of an uint8
    "logits": 1e-4,  # numbers of 10 and more
    "latent_distances": 1e-3,  # logarithms, in which small distances differ more
}
DETECTOR_TOLERANCE = 1e-3  # of scores and maps, in standard deviations of normal images


def with_resized(samples: Images, spec: InputSpec) -> Images:
    """Every second image enlarged by half and brought back to size, as a request's image may be."""
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
    most: int = max(PARITY_BATCHES),
) -> dict[str, float]:
    """The largest difference of each output from torch, at several batch sizes up to `most`. Raises ParityError."""
    outputs = [name for graph in graphs.values() for name in graph.outputs]
    largest = dict.fromkeys(outputs, 0.0)
    for size in sorted({min(size, most) for size in PARITY_BATCHES}):
        expected: Tensors = {"images": images[:size]}
        for graph in graphs.values():
            expected |= _run_torch(graph, expected)
        found = differences(expected, exported.chain(graphs, images=images[:size]), outputs)
        largest = {
            name: float(np.maximum(largest[name], found[name])) for name in outputs
        }  # keeps NaN, as max does not
    allowed = {**OTHER_TOLERANCES, **tolerances}
    check(largest, {name: allowed.get(name, FLOAT_TOLERANCE) for name in outputs}, "torch")
    return largest


def differences(expected: Tensors, found: Tensors, names: Iterable[str]) -> dict[str, float]:
    """The largest difference of each output; of floats with numbers above 1, relative to the largest."""
    largest = {}
    for name in names:
        reference = expected[name].astype(np.float64)
        scale = (
            1.0 if expected[name].dtype == np.uint8 else max(1.0, float(np.abs(reference).max()))
        )
        largest[name] = float(np.abs(found[name].astype(np.float64) - reference).max() / scale)
    return largest


def check(found: Mapping[str, float], tolerances: Mapping[str, float], reference: str) -> None:
    """Raise ParityError where a difference is larger than allowed, or is no number."""
    for name, difference in found.items():
        if not difference <= tolerances[name]:
            raise ParityError(
                f"{name} differs from {reference} by {difference:.3g}; at most {tolerances[name]} is allowed"
            )


@torch.no_grad()
def _run_torch(graph: Graph, arrays: Tensors) -> Tensors:
    results = graph.module(*(torch.from_numpy(arrays[name]) for name in graph.arguments))
    results = results if isinstance(results, tuple) else (results,)
    return {name: result.numpy() for name, result in zip(graph.outputs, results, strict=True)}
