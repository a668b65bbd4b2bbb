"""Synthetic anomalies: generated in normal photographs, to choose a detector by and to say what it finds.

Cut and paste follows CutPaste (Li et al. 2021, section 2.1); blending the texture of another photograph follows DRAEM
(Zavrtanik, Kristan and Skocaj 2021, section 3.3) without textures from elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.detector.threads import in_threads

Part = npt.NDArray[np.float32]  # (height, width, channels), 0 to 255
Mask = npt.NDArray[np.float32]  # (height, width), 0 to 1
Images = npt.NDArray[np.uint8]

VISIBLE = 12  # levels by which a pixel has to change to count as changed
TRIES = 20  # places and strengths, until enough of a region has changed
SEEN_SHARE = 0.25  # of the region's pixels, that have to change


@dataclass(frozen=True)
class SyntheticAnomalies:
    """Images uint8 (m, height, width, channels), the index of the normal image that each was made of, and its kind.

    `extents` (m,) are in parts of the shorter side, and `kinds` count in `KINDS`.
    """

    images: Images
    sources: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    extents: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)


def generate(
    images: Images, count: int, extents: tuple[float, float], seed: int
) -> SyntheticAnomalies:
    """`count` anomalies of each kind, in random ones of normal images uint8 (n, height, width, channels).

    Their extents, in parts of the shorter side, rise in even ratios from one to the other. An invisible anomaly is
    generated again, with a random extent up to the largest.
    """
    generator, rounds = np.random.default_rng(seed), -(-count // len(images))
    orders = [
        np.concatenate([generator.permutation(len(images)) for _ in range(rounds)])[:count]
        for _ in KINDS
    ]
    sources, kinds = np.concatenate(orders), np.arange(len(KINDS)).repeat(count)
    makes, smallest = list(KINDS.values()), np.tile(np.geomspace(*extents, count), len(KINDS))

    def made(index: int, own: np.random.Generator) -> tuple[Images, float]:
        other = images[own.integers(len(images))]
        return _visible(
            makes[kinds[index]], images[sources[index]], other, (smallest[index], extents[1]), own
        )

    anomalous, found = zip(
        *in_threads(made, range(len(kinds)), generator.spawn(len(kinds))), strict=True
    )
    return SyntheticAnomalies(np.stack(anomalous), sources, kinds, np.array(found))


@dataclass(frozen=True)
class Place:
    """A region of an image, and the part of the image around it, on which alone an anomaly is generated."""

    image: Images  # (height, width, channels)
    other: Images  # another normal image
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    region: Mask
    radius: float  # of the region, in pixels

    @property
    def side(self) -> int:
        height, width = self.image.shape[:2]
        return int(min(height, width))

    @property
    def part(self) -> Part:
        return self.of(self.image)

    def of(self, image: Images, down: int = 0, across: int = 0) -> Part:
        """The part of an image so many pixels further, beyond a border from the other side again."""
        height, width = image.shape[:2]
        rows, columns = (self.rows + down) % height, (self.columns + across) % width
        return image[np.ix_(rows, columns)].astype(np.float32)


Make = Callable[[Place, np.random.Generator], Part]


def _visible(
    make: Make,
    image: Images,
    other: Images,
    extents: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[Images, float]:
    """The image with an anomaly that can be seen, or the one of some tries that can be seen best; and its extent."""
    middles = np.cumsum(_structure(image))
    best, best_share, best_extent = image, -1.0, 0.0
    extent = extents[0]
    for _ in range(TRIES):
        middle = int(np.searchsorted(middles, generator.random() * middles[-1]))
        place = _place(image, other, divmod(middle, image.shape[1]), extent, generator)
        changed = np.rint(make(place, generator).clip(0, 255))
        inside = place.region > 0.5
        seen = np.abs(changed - place.part).max(axis=2) >= VISIBLE
        share = float(seen[inside].mean()) if inside.any() else 0.0
        if share > best_share:
            best, best_share, best_extent = image.copy(), share, extent
            best[np.ix_(place.rows, place.columns)] = changed.astype(np.uint8)
        if share >= SEEN_SHARE:
            break
        extent = float(generator.uniform(*extents))
    return best, best_extent


def _structure(image: Images) -> npt.NDArray[np.float64]:
    """Weight of each pixel to be the middle of an anomaly: where there is something to see, and a little everywhere."""
    grey = image.mean(axis=2, dtype=np.float32)
    window = max(3, min(grey.shape) // 16)
    mean = ndimage.uniform_filter(grey, window)
    variance = np.maximum(ndimage.uniform_filter(grey * grey, window) - mean * mean, 0)
    deviation = np.sqrt(variance)
    return np.asarray(deviation + 0.25 * deviation.mean() + 1e-3, dtype=np.float64)


def _place(
    image: Images,
    other: Images,
    middle: tuple[int, int],
    extent: float,
    generator: np.random.Generator,
) -> Place:
    """A frayed ellipse of an extent around a pixel, its edge softened by a pixel or two."""
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
    frayed = depth + 0.35 * _noise(depth.shape, radius, generator) * (depth > -0.5)
    region = np.clip(frayed * radius / 1.5 + 0.5, 0, 1).astype(np.float32)
    return Place(image, other, rows, columns, region, radius)


def _noise(
    shape: tuple[int, ...], radius: float, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Smooth noise of unit deviation, whose features are somewhat smaller than a region of this radius."""
    step = max(1, int(radius / 2))
    coarse = generator.standard_normal([size // step + 3 for size in shape]).astype(np.float32)
    smooth = (ndimage.zoom(coarse, step, order=1) if step > 1 else coarse)[: shape[0], : shape[1]]
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), dtype=np.float32)


def _paste(place: Place, generator: np.random.Generator) -> Part:
    """A part of the same photograph, from elsewhere in it, sometimes mirrored."""
    down, across = (int(generator.uniform(0.1, 0.9) * size) for size in place.image.shape[:2])
    moved = place.of(place.image, down, across)
    return _blend(place.part, moved[:, ::-1] if generator.random() < 0.5 else moved, place.region)


def _texture(place: Place, generator: np.random.Generator) -> Part:
    """The texture of another photograph, blended in through smooth noise."""
    down, across = (int(generator.integers(size)) for size in place.image.shape[:2])
    moved = place.of(place.other, down, across)[::-1, ::-1]
    through = place.region * np.clip(0.7 + 0.6 * _noise(place.region.shape, 8, generator), 0, 1)
    return _blend(place.part, moved, generator.uniform(0.4, 1.0) * through)


def _scratch(place: Place, generator: np.random.Generator) -> Part:
    """A thin curve of another brightness within the region."""
    field = _noise(place.region.shape, 2 * place.radius, generator)
    slope = np.hypot(*np.gradient(field)) + 1e-6
    thickness = generator.uniform(0.6, 1.0 + place.side / 150)
    inside = field[place.region > 0.5]
    level = float(np.median(inside)) if inside.size else 0.0
    line = np.clip(thickness - np.abs(field - level) / slope + 0.5, 0, 1) * place.region
    return _blend(place.part, _shaded(place, generator, 40, 120), line)


def _blur(place: Place, generator: np.random.Generator) -> Part:
    """Detail that is lost."""
    sigma = generator.uniform(0.015, 0.05) * place.side
    return _blend(place.part, ndimage.gaussian_filter(place.part, (sigma, sigma, 0)), place.region)


def _spot(place: Place, generator: np.random.Generator) -> Part:
    """A soft spot, brighter, darker or of another colour."""
    soft = ndimage.gaussian_filter(place.region, place.radius / 3)
    return _blend(
        place.part, _shaded(place, generator, 25, 90), soft / max(float(soft.max()), 1e-6)
    )


KINDS: Mapping[str, Make] = {
    "cut and paste": _paste,
    "other texture": _texture,
    "scratch": _scratch,
    "blur": _blur,
    "soft spot": _spot,
}


def _shaded(place: Place, generator: np.random.Generator, least: float, most: float) -> Part:
    """The part brighter or darker by some levels, in all channels together or each by itself."""
    part, channels = place.part, place.image.shape[2]
    tint = generator.uniform(-1, 1, channels)
    grey = bool((part == part[..., :1]).all()) or generator.random() < 0.5
    amount = generator.uniform(least, most) * (np.ones(channels) if grey else tint)
    inside = part[place.region > 0.5]
    dark = float(inside.mean()) < 128 if inside.size else True
    sign = 1 if generator.random() < (0.7 if dark else 0.3) else -1
    return np.asarray(part + sign * amount, dtype=np.float32)


def _blend(part: Part, foreign: Part, weight: npt.NDArray[np.floating]) -> Part:
    return np.asarray(part + weight[..., None] * (foreign - part), dtype=np.float32)
