"""What the service needs beside the graphs: calibration scores, and a prior over the latents."""

import numpy as np
import numpy.typing as npt

from bundle.manifest import Calibration, ErrorMapScale
from bundle.tensors import Images
from training.errors import DataError
from training.export.graph_runner import Graphs

MANY = 100  # images of which one in a hundred can be told
METHOD = "mean squared error of the reconstruction"
CROSS_FITTED = (
    ", each image by components fitted without it"  # behind the method, where none were held out
)


def calibrate(graphs: Graphs, normal: Images, method: str = METHOD) -> Calibration:
    """Score normal images that the network was not fitted to, uint8 (n, height, width, channels)."""
    followed = [name for name in ("latent_distances",) if name in graphs.outputs("scorer")]
    scored = graphs.chain_in_batches(
        graphs.scoring, ["scores", "error_maps", *followed], images=normal
    )
    return summarise(scored["scores"], scored["error_maps"], method, scored.get("latent_distances"))


def summarise(
    scores: npt.NDArray[np.float32],
    maps: npt.NDArray[np.float32],
    method: str,
    latent_distances: npt.NDArray[np.float32] | None = None,
) -> Calibration:
    """What is kept of the scores (n,), error maps (n, height, width) and latent distances (n,) of normal images."""
    largest = maps.max(axis=(1, 2))
    if len(maps) >= MANY:
        low, high = float(np.quantile(maps, 0.99)), float(np.quantile(largest, 0.99))
    else:
        # Of a few dozen photographs one or two are unlike the others: beside them every defect would be dark.
        low = float(np.median(np.quantile(maps, 0.99, axis=(1, 2))))
        high = float(np.quantile(largest, 0.9))
    if high <= low:
        raise DataError("the calibration images are all reconstructed alike: are they real images?")
    return Calibration(
        method=method,
        scores=tuple(float(f"{score:.9g}") for score in np.sort(scores)),  # 9 digits keep a float32
        error_map=ErrorMapScale(low=low, high=high),
        latent_deciles=() if latent_distances is None else _deciles(latent_distances),
    )


def _deciles(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float(f"{decile:.9g}") for decile in np.quantile(values, np.arange(1, 10) / 10))


def summary_line(calibrated: Calibration) -> str:
    """A line for the log: how many images were scored, and the lowest false positive rate that they allow."""
    count = len(calibrated.scores)
    return f"calibrated on {count} images; the minimum false_positive_rate is {1 / (count + 1):.2g}"
