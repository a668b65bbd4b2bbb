"""Configuration of a detector: the table `[detector]` of a recipe."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from training.config import Config, Size
from training.detector.components import (
    BLOCKS_PER_SIDE,
    COMPONENT_NAMES,
    MEMORY_BANKS,
    ComponentName,
    ComponentNames,
)
from training.detector.encoder import FEATURE_STRIDES, EncoderName

# A component, or a sum of components, such as "neighbours + gaussians".
Candidate = Annotated[
    ComponentNames,
    Field(min_length=1),
    BeforeValidator(
        lambda names: (
            [name.strip() for name in names.split("+")] if isinstance(names, str) else names
        )
    ),
]
PATCH_COMPONENTS: frozenset[ComponentName] = frozenset({*MEMORY_BANKS, "gaussians"})
# Blocks of positions divide the grid of the finest feature map.
SIZE_MULTIPLE_PIXELS = FEATURE_STRIDES[0] * BLOCKS_PER_SIDE


class DetectorConfig(Config):
    """Encoder, candidates and trials of a detector."""

    encoder: EncoderName = "efficientnet-lite0"
    """Encoder of the features; `scattering` is for small grey images."""
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)]
    """Working sizes to choose from, the cheaper first.

    A number is a square; a pair is height and width.
    """
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    """Score components to choose from, the preferred first.

    A sum of components is a candidate too, such as `"neighbours + gaussians"`.
    """
    map: ComponentName | None = None
    """Component of the anomaly map, if the chosen candidate has no memory bank."""
    banks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2000,)
    """Entries of a memory bank to choose from, the cheaper first.

    Each block of `local-neighbours` has a tenth.
    """
    folds: int = Field(20, ge=2)
    """Folds of the cross-fitting that calibrates, at most one for each image."""
    trials: int = Field(200, ge=5)
    """Maximum normal images for the choice."""
    extents: tuple[float, float] = (0.04, 0.25)
    """Smallest and largest extent of synthetic anomalies, as parts of the shorter side."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < self.extents[0] <= self.extents[1]:
            raise ValueError(
                f"extents: {list(self.extents)} must be above 0 and rise, as in [0.04, 0.25]"
            )
        components = {name for names in self.candidates for name in names}
        patches = PATCH_COMPONENTS & {*components, self.map}
        if patches and self.encoder == "scattering":
            raise ValueError(
                f"candidates: {', '.join(sorted(patches))} need the feature maps of a backbone;"
                " set encoder to efficientnet-lite0"
            )
        for height, width in self.sizes if patches else ():
            if height % SIZE_MULTIPLE_PIXELS or width % SIZE_MULTIPLE_PIXELS:
                raise ValueError(
                    f"sizes: {height}x{width} is not a multiple of {SIZE_MULTIPLE_PIXELS} pixels;"
                    " try 256x256"
                )
        if len({frozenset(names) for names in self.candidates}) < len(self.candidates):
            raise ValueError("candidates: a candidate occurs twice; name each once")
        if any(len({*names}) < len(names) for names in self.candidates):
            raise ValueError("candidates: a sum has a component twice; name each once")
        if self.map is None and ("nearest-images",) in self.candidates:
            choices = ", ".join(name for name in COMPONENT_NAMES if name != "nearest-images")
            raise ValueError(f"map: nearest-images has no anomaly map; name one of {choices}")
        return self
