"""Areas under curves of anomaly scores and anomaly maps, and their standard errors."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.metrics import roc_auc_score

Floats = npt.NDArray[np.floating]

MAX_FALSE_POSITIVE_RATE = 0.3  # of pixels, in AUPRO
RATE_STEPS = 300


def auroc(normal: Floats, anomalous: Floats) -> float:
    """Area under the ROC curve of scores, 0 to 1; 0.5 for random scores."""
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(roc_auc_score(truth, np.concatenate([normal, anomalous])))


def standard_error(area: float, normal: int, anomalous: int) -> float:
    """Standard error of an AUROC, by numbers of images (Hanley and McNeil 1982, equation 2)."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    among = (anomalous - 1) * (first - area**2) + (normal - 1) * (second - area**2)
    return float(np.sqrt((area * (1 - area) + among) / (normal * anomalous)))


def pixel_auroc(normal: Floats, anomalous: Floats, masks: npt.NDArray[np.bool_]) -> float:
    """AUROC of the pixels of anomaly maps (n, height, width); pixels outside masks are normal."""
    return auroc(np.concatenate([normal.ravel(), anomalous[~masks]]), anomalous[masks])


def aupro(normal: Floats, anomalous: Floats, masks: npt.NDArray[np.bool_]) -> float:
    """Area under the per-region overlap up to a false positive rate of pixels of 0.3, 0 to 1.

    The overlap is the mean share of each connected region that is found. The area is divided by its
    range (Bergmann et al. 2020, "Uninformed Students", section 4.1).
    """
    false = np.sort(np.concatenate([normal.ravel(), anomalous[~masks]]))[::-1]
    rates = np.linspace(0, MAX_FALSE_POSITIVE_RATE, RATE_STEPS + 1)
    thresholds = false[np.minimum((rates * len(false)).astype(int), len(false) - 1)]
    overlaps = []
    for scores, mask in zip(anomalous, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            inside = np.sort(scores[labels == region])
            overlaps.append(1 - np.searchsorted(inside, thresholds, side="right") / len(inside))
    mean = np.mean(overlaps, axis=0)
    return float(np.trapezoid(mean, rates) / MAX_FALSE_POSITIVE_RATE)
