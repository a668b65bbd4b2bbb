"""Golden vectors: inputs and outputs by which the service verifies the graphs that it loads."""

from pathlib import Path

import numpy as np

from bundle import imaging
from bundle.manifest import FEATURES, InputSpec
from bundle.tensors import Images
from training.export.graph_runner import Graphs

MAX_SMALL_IMAGE_PIXELS = 64 * 64  # the golden tensors of larger images take megabytes


def write(
    graphs: Graphs, samples: Images, spec: InputSpec, path: Path, count: int | None = None
) -> None:
    """Store every tensor of the chain, by its name, for a few images, one of them resized.

    Feature maps are skipped, because they are large. The service tests graphs that take them on the
    feature maps that it computes.
    """
    small = spec.height * spec.width <= MAX_SMALL_IMAGE_PIXELS
    images = samples[: count or (4 if small else 2)].copy()
    images[-1] = imaging.fit(
        imaging.resize(images[-1], (spec.height * 2, spec.width * 2), spec), spec
    )
    golden = graphs.chain(graphs.names, images=images)
    stored = {name: tensor for name, tensor in golden.items() if not name.startswith(FEATURES)}
    np.savez_compressed(path, allow_pickle=False, **stored)
