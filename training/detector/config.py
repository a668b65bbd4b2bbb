"""Configuration of a detector: the table `[detector]` of a recipe."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from training.config import Config, Size
from training.detector.components import BLOCKS, MEMORY_BANKS, NAMES, ComponentName, Names
from training.detector.encoder import STRIDES, EncoderName

Candidate = Annotated[  # a component, or a sum of some: "neighbours + gaussians"
    Names,
    Field(min_length=1),
    BeforeValidator(
        lambda names: (
            [name.strip() for name in names.split("+")] if isinstance(names, str) else names
        )
    ),
]
PATCH_COMPONENTS: frozenset[ComponentName] = frozenset({*MEMORY_BANKS, "gaussians"})
MULTIPLE = (
    STRIDES[0] * BLOCKS
)  # pixels: blocks of positions divide the grid of the finest feature map


class DetectorConfig(Config):
    encoder: EncoderName = "efficientnet-lite0"
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)]  # to choose from, the cheaper first
    candidates: Annotated[
        tuple[Candidate, ...], Field(min_length=1)
    ]  # to choose from, the preferred first
    map: ComponentName | None = (
        None  # of the anomaly map, where the chosen candidate has no memory bank
    )
    banks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (
        2000,
    )  # entries, the cheaper first
    folds: int = Field(20, ge=2)  # of the cross-fitting that calibrates; of few images one each
    trials: int = Field(200, ge=5)  # images at most that the choice is made on
    extents: tuple[float, float] = (
        0.04,
        0.25,
    )  # of synthetic anomalies, in parts of the shorter side

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < self.extents[0] <= self.extents[1]:
            raise ValueError(
                "extents: the smallest is above 0 and not above the largest, as in [0.04, 0.25]"
            )
        components = {name for names in self.candidates for name in names}
        patches = PATCH_COMPONENTS & {*components, self.map}
        if patches and self.encoder == "scattering":
            raise ValueError(
                f"candidates: {', '.join(sorted(patches))} need the feature maps of a backbone"
            )
        for height, width in self.sizes if patches else ():
            if height % MULTIPLE or width % MULTIPLE:
                raise ValueError(
                    f"sizes: {height}x{width} is not a multiple of {MULTIPLE} pixels, as 256x256 is"
                )
        if len({frozenset(names) for names in self.candidates}) < len(self.candidates):
            raise ValueError("candidates: each can be named once")
        if any(len({*names}) < len(names) for names in self.candidates):
            raise ValueError("candidates: a sum takes a component once")
        if self.map is None and ("nearest-images",) in self.candidates:
            choices = ", ".join(name for name in NAMES if name != "nearest-images")
            raise ValueError(f"map: nearest-images has no anomaly map; name one of {choices}")
        return self
