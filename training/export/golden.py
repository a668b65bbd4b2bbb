"""Golden vectors."""

from pathlib import Path

import numpy as np

from bundle import imaging
from bundle.manifest import FEATURES, InputSpec
from bundle.tensors import Images
from training.export.graph_runner import Graphs

LARGE = 64 * 64  # pixels: the golden tensors of larger images fill megabytes


def write(
    graphs: Graphs, samples: Images, spec: InputSpec, path: Path, count: int | None = None
) -> None:
    """Store what the graphs make of a few images, one of them resized: every tensor of the chain by its name.

    Feature maps are left out: they are large, and each graph that takes them is tested on those that it is handed.
    """
    images = samples[: count or (4 if spec.height * spec.width <= LARGE else 2)].copy()
    images[-1] = imaging.fit(
        imaging.resize(images[-1], (spec.height * 2, spec.width * 2), spec), spec
    )
    golden = graphs.chain(graphs.names, images=images)
    kept = {name: tensor for name, tensor in golden.items() if not name.startswith(FEATURES)}
    np.savez_compressed(path, allow_pickle=False, **kept)
