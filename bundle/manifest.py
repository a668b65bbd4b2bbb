"""The contract between training and service: the files of a bundle, and the tensors of its graphs.

A bundle is a directory `<models>/<name>/<version>/` that holds `manifest.json` and the files that
it lists. Its graphs, all with a free batch dimension:

| graph | inputs | outputs |
| --- | --- | --- |
| `encoder` | `images` | `latents`; variational: also `log_variances`; a backbone: `features_<n>` |
| `decoder` | `latents` | `reconstructions`, `intensities`; with a likelihood also `logits` |
| `scorer` | any but `log_variances`, `logits` | `scores`, `error_maps`; of `intensities` `errors` |
| `classifier` | `latents` | `probabilities` |

The tensors:

- `images` and `reconstructions`: uint8 (batch, height, width, channels), 0..255.
- `intensities`: reconstructions before rounding, float32 in 0..1.
- `logits`: the parameters of their likelihood.
- `latents` and `log_variances`: float32 (batch, latent_dim).
- `features_<stride>`: feature maps of a backbone, float32 (batch, channels, height / stride,
  width / stride), which one graph hands to another.
- `errors`: mean squared error of the reconstruction on the 0..1 scale, float32 (batch,).
- `scores`: anomaly scores, float32 (batch,); higher is more anomalous.
- `error_maps`: anomaly score of each pixel, not negative, float32 (batch, height, width).
- `probabilities`: float32 (batch, classes) in the order of the manifest's `classes`; sum 1.
- `latent_distances`: logarithm of the distance of the latents from those of the training images,
  float32 (batch,), by which drift is measured. A scorer that takes `latents` gives them.

An operation runs the graphs that its results need, each on the outputs of those before it. No
weight is in two graphs, but for scorers of older detectors, which hold a copy of the encoder.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from bundle.tensors import TensorName

MANIFEST = "manifest.json"
PIN = "default"  # file of a model: the version that answers without one
EXAMPLES = "examples.zip"  # file of a bundle that may be missing: test images, LABEL/NAME

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
NAME_PATTERN = "[a-z0-9][a-z0-9._-]{0,99}"
ModelName = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
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

RESULTS: Mapping[Capability, tuple[TensorName, ...]] = {
    "encode": ("latents",),
    "decode": ("reconstructions",),
    "reconstruct": ("reconstructions", "errors"),
    "denoise": ("reconstructions",),
    "sample": ("reconstructions",),
    "anomaly-score": ("scores",),
    "interpolate": ("reconstructions",),
    "classify": ("probabilities",),
}

STARTS: Mapping[Capability, TensorName] = {
    "decode": "latents",
    "sample": "latents",
}  # all others start at images

FEATURES = "features_"  # before the stride, in the names of feature maps
INPUTS: Mapping[GraphName, frozenset[TensorName]] = {
    "encoder": frozenset({"images"}),
    "decoder": frozenset({"latents"}),
    "scorer": frozenset(),
    "classifier": frozenset({"latents"}),
}
OPTIONAL_INPUTS: Mapping[GraphName, frozenset[TensorName]] = {
    "scorer": frozenset({"images", "intensities", "latents"})
}
OUTPUTS: Mapping[GraphName, frozenset[TensorName]] = {
    "encoder": frozenset({"latents"}),
    "decoder": frozenset({"reconstructions", "intensities"}),
    "scorer": frozenset({"scores", "error_maps"}),
    "classifier": frozenset({"probabilities"}),
}


class Record(BaseModel):
    """A frozen record that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


WHITE_16_BIT = 65535
REDUCING_GAP = 2.0  # what Pillow's thumbnails take
White16Bit = Annotated[int, Field(ge=255, le=WHITE_16_BIT)]
ReducingGap = Annotated[float, Field(ge=1)]


class InputSpec(Record):
    """Input of the graphs: uint8 images (height, width, channels), made by `bundle.imaging`."""

    height: PositiveInt = Field(description="Height in pixels.")
    width: PositiveInt = Field(description="Width in pixels.")
    channels: Literal[1, 3] = Field(description="Channels of a pixel; 1: grey, 3: RGB.")
    resample: Resample = Field("bilinear", description="Filter that resizes images of other sizes.")
    # The usual value is left out of every document, because services before this entry refuse it.
    white_16_bit: White16Bit = Field(
        WHITE_16_BIT,
        description="White value of 16-bit pixels; sensors of 12 bits write at most 4095.",
        exclude_if=lambda value: value == WHITE_16_BIT,
    )
    reducing_gap: ReducingGap = Field(
        REDUCING_GAP,
        description="Minimum size of a reduced JPEG, in sizes of the model. "
        "A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which is faster.",
        exclude_if=lambda value: value == REDUCING_GAP,
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


class ErrorMapScale(Record):
    """Errors at which a heatmap is dark and bright, from error maps of calibration images."""

    low: float = Field(
        ge=0,
        description="Dark: above 99 % of the pixels of normal images, of few those of the median.",
    )
    high: float = Field(
        gt=0,
        description="Bright: above the largest error of 99 % of normal images, of few 90 %.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high <= self.low:
            raise ValueError("high must be above low")
        return self


class Calibration(Record):
    """Anomaly scores of held-out normal images."""

    method: str = Field(description="Name of the score.")
    scores: tuple[float, ...] = Field(min_length=1, description="Ascending.")
    error_map: ErrorMapScale
    latent_deciles: tuple[float, ...] = Field(
        (),
        description="Deciles 1 to 9 of the latent distances of these images, or none.",
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
    """Components of a detector's score and map, selected by synthetic anomalies."""

    score: tuple[str, ...] = Field(min_length=1)
    map: tuple[str, ...] = Field(min_length=1)
    compared: dict[str, float] = Field(description="AUROC of the candidates that were compared.")
    synthetic: dict[str, dict[str, float]] = Field(
        {}, description="AUROC on synthetic anomalies of each kind, by candidate; baselines too."
    )
    recall: dict[str, dict[str, float]] = Field(
        {},
        description="Recall of the synthetic anomalies of each kind, by false positive rate.",
    )
    advice: tuple[str, ...] = Field((), description="Ways to make the detector better.")
    weak: str | None = Field(None, description="Reason why its trials were weak, if they were.")


class StandardNormal(Record):
    """Latents drawn from N(0, I)."""

    kind: Literal["standard_normal"] = "standard_normal"


class MixturePrior(Record):
    """Latents drawn from a Gaussian mixture that was fitted to those of the training images.

    Ex-post density estimation, Ghosh et al. 2020, "From Variational to Deterministic Autoencoders",
    section 4. The file holds float64 `weights` (k,), float32 `means` (k, latent_dim) and float16
    lower-triangular `cholesky` (k, latent_dim, latent_dim).
    """

    kind: Literal["gaussian_mixture"] = "gaussian_mixture"
    file: FileName


LatentPrior = Annotated[StandardNormal | MixturePrior, Field(discriminator="kind")]


class TrainingData(Record):
    """Images that the model was trained, calibrated and tested on."""

    name: str = Field(description="Name of the data set.")
    source: str = Field(description="Address or folder of the data set.")
    licence: str = Field(description="Licence of the data set.")
    images: dict[str, int] = Field(description="Images in each split.")
    sha256: dict[str, Sha256] = Field(description="Digest of each file that was read.")


class Recalibration(Record):
    """Images on which a published model was calibrated again."""

    source: str = Field(description="Model and version before.")
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
    """Origin of the bundle: recipe, code, libraries, device."""

    created: datetime
    recipe: dict[str, object] = Field(description="The recipe as resolved, overrides included.")
    git_revision: str | None = None
    libraries: dict[str, str]
    parity: dict[str, float] = Field(
        description="Largest difference from torch, or from the float32 graphs, by output."
    )
    converted_from: str | None = Field(
        None,
        description="Model and version that was converted to float16.",
        validation_alias=AliasChoices("converted_from", "halved_from"),  # the former name
    )
    recalibrated: Recalibration | None = None
    device: str | None = Field(None, description="Device of the training.")
    minutes: float | None = Field(None, description="Duration of the training.")
    backbone: Weights | None = Field(
        None, description="Network in the encoder that was trained elsewhere."
    )


class ModelManifest(Record):
    """Everything that the service knows of a model."""

    format: Literal[1] = 1
    name: ModelName
    version: PositiveInt
    description: str
    architecture: str
    capabilities: tuple[Capability, ...] = Field(min_length=1)
    input: InputSpec
    latent_dim: PositiveInt
    precision: Precision = Field(
        "float32", description="Precision of the graphs but the scorer, which is float32."
    )
    graphs: dict[GraphName, FileName]
    golden: FileName = Field(
        description="Inputs and outputs of each graph, to test a loaded bundle with."
    )
    prior: LatentPrior | None = None
    calibration: Calibration | None = None
    max_batch: PositiveInt | None = Field(None, description="Most images of one run of its graphs.")
    selection: Selection | None = None
    classes: tuple[str, ...] = Field((), description="Names of the classes of `classify`.")
    metrics: dict[str, float]
    training_data: TrainingData
    provenance: Provenance
    files: dict[FileName, Sha256] = Field(description="SHA-256 of every file that is read.")

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
    def has_examples(self) -> bool:
        """True if the bundle holds test images for people who want to try the model."""
        return EXAMPLES in self.files

    @property
    def encoder(self) -> str | None:
        """SHA-256 of the encoder graph; vectors of different encoders are never comparable."""
        file = self.graphs.get("encoder")
        return None if file is None else self.files[file]


def compute_sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_bytes(content: bytes) -> str:
    """SHA-256 of bytes, in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()
