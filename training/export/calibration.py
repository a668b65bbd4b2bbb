"""Calibration of a bundle: scores and error maps of normal images, summarised for the service."""

import numpy as np
import numpy.typing as npt

from bundle.conformal import find_minimum_rate, format_rate
from bundle.manifest import Calibration, ErrorMapScale
from bundle.tensors import Images, TensorName
from training.errors import DataError
from training.export.graph_runner import Graphs

MIN_QUANTILE_IMAGES = 100  # fewer have no 99 % quantile
METHOD = "mean squared error of the reconstruction"
# Behind the method, if no images were held out.
CROSS_FITTED_SUFFIX = ", each image by components fitted without it"


def calibrate(graphs: Graphs, normal: Images, method: str = METHOD) -> Calibration:
    """Score held-out normal images, uint8 (n, height, width, channels)."""
    outputs: list[TensorName] = ["scores", "error_maps"]
    if "latent_distances" in graphs.outputs("scorer"):
        outputs.append("latent_distances")
    scored = graphs.chain_in_batches(graphs.scoring, outputs, images=normal)
    return summarise(scored["scores"], scored["error_maps"], method, scored.get("latent_distances"))


def summarise(
    scores: npt.NDArray[np.float32],
    maps: npt.NDArray[np.float32],
    method: str,
    latent_distances: npt.NDArray[np.float32] | None = None,
) -> Calibration:
    """Calibration by scores (n,), maps (n, height, width) and latent distances (n,).

    All are of normal images. Raises DataError if all error maps are alike.
    """
    largest = maps.max(axis=(1, 2))
    if len(maps) >= MIN_QUANTILE_IMAGES:
        low, high = float(np.quantile(maps, 0.99)), float(np.quantile(largest, 0.99))
    else:
        # Of a few dozen photographs, one or two are atypical; a scale up to them hides defects.
        low = float(np.median(np.quantile(maps, 0.99, axis=(1, 2))))
        high = float(np.quantile(largest, 0.9))
    if high <= low:
        raise DataError(
            f"the calibration images all have the same largest error, {high:.3g}: use real images"
        )
    return Calibration(
        method=method,
        scores=tuple(float(f"{score:.9g}") for score in np.sort(scores)),  # 9 digits keep a float32
        error_map=ErrorMapScale(low=low, high=high),
        latent_deciles=() if latent_distances is None else _deciles(latent_distances),
    )


def _deciles(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float(f"{decile:.9g}") for decile in np.quantile(values, np.arange(1, 10) / 10))


def format_summary(calibration: Calibration) -> str:
    """A line for the log: the number of images, and the minimum false positive rate."""
    count = len(calibration.scores)
    least = format_rate(find_minimum_rate(count))
    return f"calibrated on {count} images; the minimum false_positive_rate is {least}"
