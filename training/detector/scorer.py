"""The scorer graph of a detector: standardised components, anomaly map, and latent distance."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle.tensors import TensorName
from training.detector.components import Component, ComponentName
from training.detector.whitening import LatentDistance

SCORER_OUTPUTS: tuple[TensorName, ...] = ("scores", "error_maps", "latent_distances")


class Scale(NamedTuple):
    """Mean and standard deviation of scores and of map pixels, over held-out normal images."""

    score: tuple[float, float]
    map: tuple[float, float] | None


class DetectorScorer(nn.Module):
    """Network from the tensors that `inputs` names to those of `SCORER_OUTPUTS`.

    The score is the mean of its components. Each is in standard deviations from the mean of normal
    images. So is the anomaly map, of one component. Its softplus is taken, because maps are not
    negative. The service follows the latent distance for drift.
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
            {str(name): component for name, component in self._components.items()}
        )
        self.latents = latents
        taken = {name for component in self._components.values() for name in component.inputs}
        self.inputs = tuple(sorted({*taken, "latents"}))

    def describe(self) -> str:
        """A description of the score, for the calibration's method."""
        names = " and ".join(self.score)
        mean = names if len(self.score) == 1 else f"mean of {names}"
        return f"{mean}, in standard deviations of normal images"

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch = dict(zip(self.inputs, tensors, strict=True))
        outputs = {name: component(batch) for name, component in self._components.items()}
        scores = [
            _standardise(outputs[name].scores, self.scales[name].score) for name in self.score
        ]
        maps, scale = outputs[self.map].maps, self.scales[self.map].map
        assert maps is not None  # the component was chosen for its map
        assert scale is not None
        enlarged = functional.interpolate(
            _standardise(maps, scale)[:, None],
            list(self.size),
            mode="bilinear",
            align_corners=False,
        )
        return (
            torch.stack(scores).mean(dim=0),
            functional.softplus(enlarged).squeeze(1),
            self.latents(batch["latents"]),
        )


def _standardise(values: Tensor, scale: tuple[float, float]) -> Tensor:
    return (values - scale[0]) / scale[1]
