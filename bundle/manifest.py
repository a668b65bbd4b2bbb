"""The contract between training and service: what stands in a bundle, and what its graphs take and give.

A bundle is a directory `<models>/<name>/<version>/` that holds `manifest.json` and the files that it lists.
Its graphs, all with a free batch dimension:

| graph | takes | gives |
| --- | --- | --- |
| `encoder` | `images` | `latents`; a variational model's also `log_variances`, a backbone's also `features_<stride>` |
| `decoder` | `latents` | `reconstructions`, `intensities`, and for a model with a likelihood `logits` |
| `scorer` | any of these but `log_variances` and `logits` | `scores`, `error_maps`; of `intensities` also `errors` |
| `classifier` | `latents` | `probabilities` |

`images` and `reconstructions` are uint8 (batch, height, width, channels), 0..255; `intensities` are reconstructions
before rounding, float32 in 0..1, and `logits` the parameters of their likelihood. `latents` and `log_variances` are
float32 (batch, latent_dim). `features_<stride>` are a backbone's feature maps, float32 (batch, channels, height /
stride, width / stride), handed from graph to graph. `errors` and `scores` are float32 (batch,): the mean squared error
of the reconstruction on the 0..1 scale, and the anomaly score (higher is more anomalous). `error_maps` is float32
(batch, height, width), not negative: the anomaly score of each pixel. `probabilities` are float32 (batch, classes), in
the order of the manifest's `classes`, and sum to 1. A scorer that takes `latents` also gives `latent_distances`,
float32 (batch,): the logarithm of their distance from those of the training images, by which drift is followed. An
operation runs the graphs that its results need, each on what those before it gave. No weight stands in two graphs, but
for the scorers of older detectors, which hold a copy of the encoder.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, model_validator

MANIFEST = "manifest.json"

Capability = Literal[
    "encode",
    "decode",
    "reconstruct",
    "denoise",
    "sample",
    "anomaly-score",
    "interpolate",
    "classify",
]
GraphName = Literal["encoder", "decoder", "scorer", "classifier"]
Precision = Literal["float32", "float16"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

GRAPHS: tuple[GraphName, ...] = (
    "encoder",
    "decoder",
    "scorer",
    "classifier",
)  # in the order of chaining
GRAPHS_OF: Mapping[Capability, frozenset[GraphName]] = {
    "encode": frozenset({"encoder"}),
    "decode": frozenset({"decoder"}),
    "reconstruct": frozenset({"encoder", "decoder", "scorer"}),
    "denoise": frozenset({"encoder", "decoder"}),
    "sample": frozenset({"decoder"}),
    "anomaly-score": frozenset({"scorer"}),  # and those that give it its inputs
    "interpolate": frozenset({"encoder", "decoder"}),
    "classify": frozenset({"encoder", "classifier"}),
}

RESULTS: Mapping[Capability, tuple[str, ...]] = {
    "encode": ("latents",),
    "decode": ("reconstructions",),
    "reconstruct": ("reconstructions", "errors"),
    "denoise": ("reconstructions",),
    "sample": ("reconstructions",),
    "anomaly-score": ("scores",),
    "interpolate": ("reconstructions",),
    "classify": ("probabilities",),
}

STARTS: Mapping[Capability, str] = {
    "decode": "latents",
    "sample": "latents",
}  # all others start at images

FEATURES = "features_"  # before the stride, in the names of feature maps
INPUTS: Mapping[GraphName, frozenset[str]] = {
    "encoder": frozenset({"images"}),
    "decoder": frozenset({"latents"}),
    "scorer": frozenset(),
    "classifier": frozenset({"latents"}),
}
OPTIONAL_INPUTS: Mapping[GraphName, frozenset[str]] = {
    "scorer": frozenset({"images", "intensities", "latents"})
}
OUTPUTS: Mapping[GraphName, frozenset[str]] = {
    "encoder": frozenset({"latents"}),
    "decoder": frozenset({"reconstructions", "intensities"}),
    "scorer": frozenset({"scores", "error_maps"}),
    "classifier": frozenset({"probabilities"}),
}


class Record(BaseModel):
    """A frozen record that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


WHITE_16_BIT = 65535
REDUCING_GAP = 2.0  # what Pillow's thumbnails take
White16Bit = Annotated[int, Field(ge=255, le=WHITE_16_BIT)]
ReducingGap = Annotated[float, Field(ge=1)]


class InputSpec(Record):
    """What the graphs take: uint8 images (height, width, channels), made by `bundle.imaging`."""

    height: PositiveInt
    width: PositiveInt
    channels: Literal[1, 3] = Field(description="1: grey, 3: RGB.")
    resample: Resample = Field(
        "bilinear", description="The filter with which other sizes are brought to this one."
    )
    # The usual value is left out of every document, because services before this entry refuse it.
    white_16_bit: White16Bit = Field(
        WHITE_16_BIT,
        description="The value of 16-bit pixels that is white; sensors of 12 bits write at most 4095.",
        exclude_if=lambda value: value == WHITE_16_BIT,
    )
    reducing_gap: ReducingGap = Field(
        REDUCING_GAP,
        description="A larger JPEG is decoded at a half, a quarter or an eighth, to no less than this many times"
        " the model's height and width.",
        exclude_if=lambda value: value == REDUCING_GAP,
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


class ErrorMapScale(Record):
    """Where a heatmap is dark and where it is bright, from the error maps of the calibration images."""

    low: float = Field(
        ge=0,
        description="99 % of the pixels of normal images, of few those of the middle one, have a smaller error: dark.",
    )
    high: float = Field(
        gt=0,
        description="The largest errors of 99 % of normal images, of few 90 %, are smaller: bright.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high <= self.low:
            raise ValueError("high must be above low")
        return self


class Calibration(Record):
    """The anomaly scores of normal images that the network was not fitted to."""

    method: str = Field(description="What the score is.")
    scores: tuple[float, ...] = Field(min_length=1, description="Ascending.")
    error_map: ErrorMapScale
    latent_deciles: tuple[float, ...] = Field(
        (),
        description="Of the latent distances of these images: the nine that part them into tenths, or none.",
    )

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for name, numbers in (("scores", self.scores), ("latent_deciles", self.latent_deciles)):
            if any(a > b for a, b in pairwise(numbers)):
                raise ValueError(f"{name} must ascend")
        if len(self.latent_deciles) not in (0, 9):
            raise ValueError("latent_deciles must be nine")
        return self


class Selection(Record):
    """Of which evidence a detector's score and map are made, chosen by synthetic anomalies in held-out images."""

    score: tuple[str, ...] = Field(min_length=1)
    map: tuple[str, ...] = Field(min_length=1)
    compared: dict[str, float] = Field(
        description="Areas under the ROC curve of what there was to choose from."
    )
    synthetic: dict[str, dict[str, float]] = Field(
        {}, description="AUROC on synthetic anomalies of each kind, by candidate; baselines too."
    )
    recall: dict[str, dict[str, float]] = Field(
        {},
        description="Share of the synthetic anomalies of each kind that is found, by false positive rate.",
    )
    advice: tuple[str, ...] = Field((), description="What would make the detector better.")
    weak: str | None = Field(None, description="Why it was published though its trials were weak.")


class StandardNormal(Record):
    """Latents are drawn from N(0, I)."""

    kind: Literal["standard_normal"] = "standard_normal"


class MixturePrior(Record):
    """Latents are drawn from a Gaussian mixture that was fitted to those of the training images.

    Ex-post density estimation, Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 4.
    The file holds float64 `weights` (k,), float32 `means` (k, latent_dim) and float16 lower-triangular `cholesky`
    (k, latent_dim, latent_dim).
    """

    kind: Literal["gaussian_mixture"] = "gaussian_mixture"
    file: FileName


LatentPrior = Annotated[StandardNormal | MixturePrior, Field(discriminator="kind")]


class TrainingData(Record):
    """What the model was trained, calibrated and tested on."""

    name: str
    source: str
    licence: str
    images: dict[str, int] = Field(description="Images in each split.")
    sha256: dict[str, Sha256] = Field(description="Digest of each file that was read.")


class Recalibration(Record):
    """On what a published model was calibrated anew."""

    source: str = Field(description="The model and version that it was.")
    images: PositiveInt
    sha256: Sha256 = Field(description="Of all paths and bytes.")


class Weights(Record):
    """Source and licence of a backbone's weights."""

    name: str
    source: str
    licence: str
    trained_on: str
    sha256: Sha256 = Field(description="Of the file that they were read from.")


class Provenance(Record):
    """How the bundle came to be."""

    created: datetime
    recipe: dict[str, object] = Field(description="The recipe as resolved, overrides included.")
    git_revision: str | None = None
    libraries: dict[str, str]
    parity: dict[str, float] = Field(
        description="Largest difference from torch, or from the graphs that were halved, by output."
    )
    halved_from: str | None = Field(
        None, description="The model and version whose graphs were halved."
    )
    recalibrated: Recalibration | None = None
    device: str | None = Field(None, description="What it was trained on.")
    minutes: float | None = Field(None, description="How long the training took.")
    backbone: Weights | None = Field(
        None, description="Of the network in the encoder that was trained elsewhere."
    )


class ModelManifest(Record):
    """All that the service knows of a model."""

    format: Literal[1] = 1
    name: ModelName
    version: PositiveInt
    description: str
    architecture: str
    capabilities: tuple[Capability, ...] = Field(min_length=1)
    input: InputSpec
    latent_dim: PositiveInt
    precision: Precision = Field(
        "float32", description="In what the graphs compute, but for the scorer: float32."
    )
    graphs: dict[GraphName, FileName]
    golden: FileName = Field(
        description="Inputs and outputs of each graph, on which the loaded bundle is tested."
    )
    prior: LatentPrior | None = None
    calibration: Calibration | None = None
    max_batch: PositiveInt | None = Field(
        None, description="Most images that one run of its graphs takes."
    )
    selection: Selection | None = None
    classes: tuple[str, ...] = Field(
        (), description="The names of the classes that `classify` tells apart."
    )
    metrics: dict[str, float]
    training_data: TrainingData
    provenance: Provenance
    files: dict[FileName, Sha256] = Field(
        description="SHA-256 of every file beside the manifest that is read."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for capability in self.capabilities:
            if missing := GRAPHS_OF[capability] - self.graphs.keys():
                raise ValueError(f"{capability} needs the graph {', '.join(sorted(missing))}")
        if "sample" in self.capabilities and self.prior is None:
            raise ValueError("sample needs a prior")
        if "anomaly-score" in self.capabilities and self.calibration is None:
            raise ValueError("anomaly-score needs a calibration")
        if "classify" in self.capabilities and (
            len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)
        ):
            raise ValueError("classify needs at least two classes, each with a name of its own")
        needed = {*self.graphs.values(), self.golden}
        if isinstance(self.prior, MixturePrior):
            needed.add(self.prior.file)
        if unlisted := needed - self.files.keys():
            raise ValueError(f"files lacks the digest of {', '.join(sorted(unlisted))}")
        return self

    @property
    def encoder(self) -> str | None:
        """SHA-256 of the encoder graph; vectors of different encoders are never comparable."""
        file = self.graphs.get("encoder")
        return None if file is None else self.files[file]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
