"""The scoring graph of a detector: evidence brought to one scale and added up; and which evidence that is.

The choice is made without any labelled anomaly: on normal images that were held out, and on synthetic anomalies in
them, which are made otherwise than those that the network was trained on.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.manifest import Selection
from training.detection import auroc
from training.evidence import Evidence, EvidenceName, Scene
from training.similarity import reduced

Names = tuple[EvidenceName, ...]

PLAIN = 0.95  # the area above which a whole image that was changed is taken for another thing
PIXELS = 17  # every 17th is looked at where maps are compared


class Readings(NamedTuple):
    """What one kind of evidence says of images: numbers (n,), and maps (n, height, width) where it has them."""

    numbers: Tensor
    maps: Tensor | None


class Scale(NamedTuple):
    """Mean and standard deviation over normal images, of the number and of the map."""

    number: tuple[float, float]
    map: tuple[float, float] | None


class Scorer(nn.Module):
    """uint8 images, intensities (both (batch, height, width, channels)) and latents to errors, scores, maps, distances.

    A score is the mean of its evidence, each in standard deviations from the mean of normal images. So is the map, of
    which the softplus is taken, for maps are not negative. The distances are the evidence of the latents, whether the
    score is made of it or not.
    """

    def __init__(
        self, evidence: Mapping[EvidenceName, Evidence], scales: Mapping[EvidenceName, Scale], selection: Selection
    ):
        super().__init__()
        used = [name for name in evidence if name in {*selection.score, *selection.map}]
        self.evidence = nn.ModuleDict({name: evidence[name] for name in used})
        self.latents = evidence["latents"]
        self.scales = {name: scales[name] for name in used}
        self.selection = selection

    def of(self, evidence: Mapping[EvidenceName, Evidence]) -> "Scorer":
        """The same sums of the evidence of another network."""
        return Scorer(evidence, self.scales, self.selection).eval()

    def describe(self) -> str:
        return f"mean of {' and '.join(self.selection.score)} in standard deviations of normal images"

    def forward(self, images: Tensor, intensities: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        difference = images.flatten(1).float() / 255 - intensities.flatten(1)
        errors = (difference * difference).mean(dim=1)
        scene = scene_of(images, intensities, latents)
        numbers: list[Tensor] = []
        maps: list[Tensor] = []
        for name, evidence in self.evidence.items():
            number, where = evidence(scene)
            scale = self.scales[name]  # type: ignore[index]
            if name in self.selection.score:
                numbers.append((number - scale.number[0]) / scale.number[1])
            if name in self.selection.map:
                assert scale.map is not None
                maps.append((where - scale.map[0]) / scale.map[1])
        combined = functional.softplus(torch.stack(maps).mean(dim=0))[:, None]
        size = list(images.shape[1:3])
        enlarged = functional.interpolate(combined, size, mode="bilinear", align_corners=False).squeeze(1)
        return errors, torch.stack(numbers).mean(dim=0), enlarged, self.latents(scene)[0]


def scene_of(images: Tensor, intensities: Tensor, latents: Tensor) -> Scene:
    """From what the graphs hand on, (batch, height, width, channels), to what evidence is taken from."""
    seen = images.permute(0, 3, 1, 2).float() / 255
    return Scene(reduced(seen), reduced(intensities.permute(0, 3, 1, 2)), latents)


def scales(normal: Mapping[EvidenceName, Readings]) -> dict[EvidenceName, Scale]:
    """Of readings of normal images that were held out."""
    return {
        name: Scale(_spread(found.numbers), None if found.maps is None else _spread(found.maps))
        for name, found in normal.items()
    }


def choose(
    normal: Mapping[EvidenceName, Readings],
    strange: Mapping[EvidenceName, Readings],
    masks: Tensor,
    kinds: Tensor | None = None,
) -> Selection:
    """By how well sums of evidence tell synthetic anomalies, with their masks (n, height, width), from normal images.

    Of the sums within one standard error of the best, that of the most kinds is taken: the defects to come are of other
    kinds still (as Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3, take the simplest tree).
    Where the anomalies have `kinds` (n,), those that may be normal images still are left out.
    """
    scale = scales(normal)
    if kinds is not None:
        other = _other(normal, strange, kinds)
        masks = masks[other]
        strange = {
            name: Readings(found.numbers[other], None if found.maps is None else found.maps[other])
            for name, found in strange.items()
        }
    numbers = {name: _together(normal[name].numbers, strange[name].numbers, scale[name].number) for name in normal}
    truth = np.repeat([False, True], [len(next(iter(normal.values())).numbers), len(masks)])
    by_score = {names: _area(truth, numbers, names) for names in _sums(list(numbers))}
    marked = torch.cat([torch.zeros(len(truth) - len(masks), *masks.shape[1:]), masks]).flatten()[::PIXELS].numpy()
    maps = {
        name: _together(found.maps, strange[name].maps, scale[name].map)
        for name, found in normal.items()
        if found.maps is not None
    }
    by_map = {names: _area(marked > 0.5, maps, names) for names in _sums(list(maps))}
    compared = {f"image_auroc_{'+'.join(names)}": area for names, area in by_score.items()}
    compared |= {f"pixel_auroc_{'+'.join(names)}": area for names, area in by_map.items()}
    rounded = {name: round(area, 4) for name, area in compared.items()}
    counts = len(truth) - len(masks), len(masks)
    return Selection(score=_best(by_score, *counts), map=_best(by_map, *counts), compared=rounded)


def _other(normal: Mapping[EvidenceName, Readings], strange: Mapping[EvidenceName, Readings], kinds: Tensor) -> Tensor:
    """Which anomalies are of kinds that some evidence tells from normal images: an 8 upside down is an 8 still."""
    told = torch.zeros(len(kinds), dtype=torch.bool)
    for kind in {*kinds.tolist()}:
        numbers = {name: (normal[name].numbers, found.numbers[kinds == kind]) for name, found in strange.items()}
        told |= (kinds == kind) & (max(auroc(a.numpy(), b.numpy()) for a, b in numbers.values()) >= PLAIN)
    return told if told.any() else torch.ones_like(told)


def _sums(names: list[EvidenceName]) -> list[Names]:
    return [chosen for count in range(1, len(names) + 1) for chosen in combinations(names, count)]


def _best(areas: Mapping[Names, float], normal: int, strange: int) -> Names:
    most = max(areas.values())
    least = most - _standard_error(most, normal, strange)
    return max((names for names in areas if areas[names] >= least), key=lambda names: (len(names), areas[names]))


def _standard_error(area: float, normal: int, strange: int) -> float:
    """Of an area under the curve, from so many images (Hanley and McNeil 1982, equation 2)."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    among = (strange - 1) * (first - area**2) + (normal - 1) * (second - area**2)
    return float(np.sqrt((area * (1 - area) + among) / (normal * strange)))


def _together(
    normal: Tensor | None, strange: Tensor | None, scale: tuple[float, float] | None
) -> npt.NDArray[np.float32]:
    assert normal is not None
    assert strange is not None
    assert scale is not None
    joined = torch.cat([normal, strange])
    flat = joined.flatten()[::PIXELS] if joined.dim() > 1 else joined
    standard: npt.NDArray[np.float32] = ((flat - scale[0]) / scale[1]).numpy()
    return standard


def _area(truth: npt.NDArray[np.bool_], values: Mapping[EvidenceName, npt.NDArray[np.float32]], names: Names) -> float:
    together = np.sum([values[name] for name in names], axis=0)
    return auroc(together[~truth], together[truth])


def _spread(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), max(float(values.std()), 1e-6)
