"""Synthetic anomalies: generated in normal images, to choose a detector and to measure its recall.

Cut and paste follows CutPaste (Li et al. 2021, section 2.1). Other texture follows DRAEM
(Zavrtanik, Kristan and Skocaj 2021, section 3.3), with textures of other normal images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bundle.tensors import Images
from training.detector.threads import map_in_threads

Crop = npt.NDArray[np.float32]  # (height, width, channels), 0 to 255
Mask = npt.NDArray[np.float32]  # (height, width), 0 to 1

MIN_VISIBLE_LEVELS = 12  # of 255: a smaller change of a pixel is invisible
MAX_TRIES = 20  # positions and strengths, until enough of a region has changed
MIN_VISIBLE_SHARE = 0.25  # of the pixels of a region


@dataclass(frozen=True)
class SyntheticAnomalies:
    """Normal images with a synthetic anomaly each."""

    images: Images  # uint8 (m, height, width, channels)
    sources: npt.NDArray[np.int64]  # (m,), indices of the normal images
    kinds: npt.NDArray[np.int64]  # (m,), indices into `KINDS`
    extents: npt.NDArray[np.float64]  # (m,), as parts of the shorter side

    def __len__(self) -> int:
        return len(self.images)


def generate(
    images: Images, count: int, extents: tuple[float, float], seed: int
) -> SyntheticAnomalies:
    """Generate `count` anomalies of each kind, in random normal images.

    The images are uint8 (n, height, width, channels). Extents are parts of the shorter side. They
    rise in even ratios from the smallest to the largest. An invisible anomaly is generated again,
    with a random extent up to the largest.
    """
    generator, rounds = np.random.default_rng(seed), -(-count // len(images))
    orders = [
        np.concatenate([generator.permutation(len(images)) for _ in range(rounds)])[:count]
        for _ in KINDS
    ]
    sources, kinds = np.concatenate(orders), np.arange(len(KINDS)).repeat(count)
    makers, smallest = list(KINDS.values()), np.tile(np.geomspace(*extents, count), len(KINDS))

    def generate_one(index: int, own: np.random.Generator) -> tuple[Images, float]:
        other = images[own.integers(len(images))]
        return _generate_visible(
            makers[kinds[index]], images[sources[index]], other, (smallest[index], extents[1]), own
        )

    anomalous, final_extents = zip(
        *map_in_threads(generate_one, range(len(kinds)), generator.spawn(len(kinds))), strict=True
    )
    return SyntheticAnomalies(np.stack(anomalous), sources, kinds, np.array(final_extents))


@dataclass(frozen=True)
class AnomalyRegion:
    """A region of an image for an anomaly; only the crop around it changes."""

    image: Images  # (height, width, channels)
    other: Images  # another normal image
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    mask: Mask  # of the crop, 1 in the region
    radius: float  # of the region, in pixels

    @property
    def side(self) -> int:
        height, width = self.image.shape[:2]
        return int(min(height, width))

    @property
    def crop(self) -> Crop:
        """The crop of the image."""
        return self.crop_of(self.image)

    def crop_of(self, image: Images, down: int = 0, across: int = 0) -> Crop:
        """The crop of an image, moved by some pixels; it wraps around at the borders."""
        height, width = image.shape[:2]
        rows, columns = (self.rows + down) % height, (self.columns + across) % width
        return image[np.ix_(rows, columns)].astype(np.float32)


AnomalyMaker = Callable[[AnomalyRegion, np.random.Generator], Crop]


def _generate_visible(
    make: AnomalyMaker,
    image: Images,
    other: Images,
    extents: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[Images, float]:
    """The image with a visible anomaly, and its extent; of `MAX_TRIES`, the most visible."""
    middles = np.cumsum(_weigh_pixels(image))
    best, best_share, best_extent = image, -1.0, 0.0
    extent = extents[0]
    for _ in range(MAX_TRIES):
        middle = int(np.searchsorted(middles, generator.random() * middles[-1]))
        region = _draw_region(image, other, divmod(middle, image.shape[1]), extent, generator)
        changed = np.rint(make(region, generator).clip(0, 255))
        inside = region.mask > 0.5
        seen = np.abs(changed - region.crop).max(axis=2) >= MIN_VISIBLE_LEVELS
        share = float(seen[inside].mean()) if inside.any() else 0.0
        if share > best_share:
            best, best_share, best_extent = image.copy(), share, extent
            best[np.ix_(region.rows, region.columns)] = changed.astype(np.uint8)
        if share >= MIN_VISIBLE_SHARE:
            break
        extent = float(generator.uniform(*extents))
    return best, best_extent


def _weigh_pixels(image: Images) -> npt.NDArray[np.float64]:
    """Weights of pixels as the middle of an anomaly: the local deviation, and a minimum."""
    grey = image.mean(axis=2, dtype=np.float32)
    window = max(3, min(grey.shape) // 16)
    mean = ndimage.uniform_filter(grey, window)
    variance = np.maximum(ndimage.uniform_filter(grey * grey, window) - mean * mean, 0)
    deviation = np.sqrt(variance)
    return np.asarray(deviation + 0.25 * deviation.mean() + 1e-3, dtype=np.float64)


def _draw_region(
    image: Images,
    other: Images,
    middle: tuple[int, int],
    extent: float,
    generator: np.random.Generator,
) -> AnomalyRegion:
    """A frayed ellipse of some extent around a pixel, with an edge softened over a pixel or two."""
    height, width = image.shape[:2]
    (y, x), radius = middle, max(1.5, extent * min(height, width) / 2)
    reach = int(2 * radius) + 4
    rows = np.arange(max(0, y - reach), min(height, y + reach + 1))
    columns = np.arange(max(0, x - reach), min(width, x + reach + 1))
    angle, squeeze = generator.uniform(0, np.pi), generator.uniform(0.4, 1.0)
    down, across = rows[:, None] - y, columns[None] - x
    along = (across * np.cos(angle) + down * np.sin(angle)) / radius
    aside = (down * np.cos(angle) - across * np.sin(angle)) / (radius * squeeze)
    depth = 1 - np.sqrt(along**2 + aside**2)
    frayed = depth + 0.35 * _draw_noise(depth.shape, radius, generator) * (depth > -0.5)
    mask = np.clip(frayed * radius / 1.5 + 0.5, 0, 1).astype(np.float32)
    return AnomalyRegion(image, other, rows, columns, mask, radius)


def _draw_noise(
    shape: tuple[int, ...], radius: float, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Smooth noise of unit deviation, with features somewhat smaller than the radius."""
    step = max(1, int(radius / 2))
    coarse = generator.standard_normal([size // step + 3 for size in shape]).astype(np.float32)
    smooth = (ndimage.zoom(coarse, step, order=1) if step > 1 else coarse)[: shape[0], : shape[1]]
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), dtype=np.float32)


def _paste(region: AnomalyRegion, generator: np.random.Generator) -> Crop:
    """Paste another crop of the same image, sometimes mirrored."""
    down, across = (int(generator.uniform(0.1, 0.9) * size) for size in region.image.shape[:2])
    moved = region.crop_of(region.image, down, across)
    return _blend(region.crop, moved[:, ::-1] if generator.random() < 0.5 else moved, region.mask)


def _blend_texture(region: AnomalyRegion, generator: np.random.Generator) -> Crop:
    """Blend in the texture of another image, weighted by smooth noise."""
    down, across = (int(generator.integers(size)) for size in region.image.shape[:2])
    moved = region.crop_of(region.other, down, across)[::-1, ::-1]
    through = region.mask * np.clip(0.7 + 0.6 * _draw_noise(region.mask.shape, 8, generator), 0, 1)
    return _blend(region.crop, moved, generator.uniform(0.4, 1.0) * through)


def _scratch(region: AnomalyRegion, generator: np.random.Generator) -> Crop:
    """Draw a thin curve of another brightness."""
    field = _draw_noise(region.mask.shape, 2 * region.radius, generator)
    slope = np.hypot(*np.gradient(field)) + 1e-6
    thickness = generator.uniform(0.6, 1.0 + region.side / 150)
    inside = field[region.mask > 0.5]
    level = float(np.median(inside)) if inside.size else 0.0
    line = np.clip(thickness - np.abs(field - level) / slope + 0.5, 0, 1) * region.mask
    return _blend(region.crop, _shade(region, generator, 40, 120), line)


def _blur(region: AnomalyRegion, generator: np.random.Generator) -> Crop:
    """Blur the region."""
    sigma = generator.uniform(0.015, 0.05) * region.side
    return _blend(region.crop, ndimage.gaussian_filter(region.crop, (sigma, sigma, 0)), region.mask)


def _add_spot(region: AnomalyRegion, generator: np.random.Generator) -> Crop:
    """Add a soft spot, brighter, darker or of another colour."""
    soft = ndimage.gaussian_filter(region.mask, region.radius / 3)
    return _blend(
        region.crop, _shade(region, generator, 25, 90), soft / max(float(soft.max()), 1e-6)
    )


KINDS: Mapping[str, AnomalyMaker] = {
    "cut and paste": _paste,
    "other texture": _blend_texture,
    "scratch": _scratch,
    "blur": _blur,
    "soft spot": _add_spot,
}


def _shade(
    region: AnomalyRegion, generator: np.random.Generator, min_levels: float, max_levels: float
) -> Crop:
    """Make the crop brighter or darker by some levels, in all channels alike or in each apart."""
    crop, channels = region.crop, region.image.shape[2]
    tint = generator.uniform(-1, 1, channels)
    grey = bool((crop == crop[..., :1]).all()) or generator.random() < 0.5
    amount = generator.uniform(min_levels, max_levels) * (np.ones(channels) if grey else tint)
    inside = crop[region.mask > 0.5]
    dark = float(inside.mean()) < 128 if inside.size else True
    sign = 1 if generator.random() < (0.7 if dark else 0.3) else -1
    return np.asarray(crop + sign * amount, dtype=np.float32)


def _blend(crop: Crop, foreign: Crop, weight: npt.NDArray[np.floating]) -> Crop:
    return np.asarray(crop + weight[..., None] * (foreign - crop), dtype=np.float32)
