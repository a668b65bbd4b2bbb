"""The scorer graph of a detector: standardised components, their anomaly map, and the distance that drift follows."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.detector.components import Component, ComponentName
from training.detector.whitening import LatentDistance

SCORES = ("scores", "error_maps", "latent_distances")


class Scale(NamedTuple):
    """Mean and standard deviation over held-out normal images, of the scores and of the maps' pixels."""

    score: tuple[float, float]
    map: tuple[float, float] | None


class Scorer(nn.Module):
    """`forward` takes the tensors that `inputs` names and gives those of `SCORES`.

    A score is the mean of its components, each in standard deviations from the mean of normal images. The map is that
    of one component, likewise, of which the softplus is taken, because maps are not negative.
    """

    def __init__(
        self,
        score: Mapping[ComponentName, Component],
        mapped: tuple[ComponentName, Component],
        scales: Mapping[ComponentName, Scale],
        latents: LatentDistance,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.map, component = mapped
        self.score, self.scales, self.size = tuple(score), scales, size
        self._components: dict[ComponentName, Component] = {**score, self.map: component}
        self.modules_by_name = nn.ModuleDict(
            {str(name): each for name, each in self._components.items()}
        )
        self.latents = latents
        taken = {name for each in self._components.values() for name in each.inputs}
        self.inputs = tuple(sorted({*taken, "latents"}))

    def describe(self) -> str:
        """The score in words, for the calibration's method."""
        names = " and ".join(self.score)
        return f"{names if len(self.score) == 1 else f'mean of {names}'}, in standard deviations of normal images"

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scene = dict(zip(self.inputs, tensors, strict=True))
        readings = {name: component(scene) for name, component in self._components.items()}
        scores = [
            _standardised(readings[name].scores, self.scales[name].score) for name in self.score
        ]
        maps, scale = readings[self.map].maps, self.scales[self.map].map
        assert maps is not None  # the component was chosen for its map
        assert scale is not None
        enlarged = functional.interpolate(
            _standardised(maps, scale)[:, None],
            list(self.size),
            mode="bilinear",
            align_corners=False,
        )
        return (
            torch.stack(scores).mean(dim=0),
            functional.softplus(enlarged).squeeze(1),
            self.latents(scene["latents"]),
        )


def _standardised(values: Tensor, scale: tuple[float, float]) -> Tensor:
    return (values - scale[0]) / scale[1]
