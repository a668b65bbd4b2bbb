"""Bodies as they stand in the OpenAPI document, each with an example that works when pasted.

Answers are written by `service.api.responses`; these types describe them and are checked against them by the tests.
"""

import base64
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bundle.conformal import RATES
from bundle.manifest import InputSpec, Record, TrainingData
from service.api.media_types import IMAGE_TYPES, JSON, MULTIPART, NPY
from service.operations import MAX_SEED

EXAMPLE_IMAGE = base64.b64encode(
    resources.files("service.api").joinpath("example.png").read_bytes()
).decode("ascii")
EXAMPLE_LATENT = [0.0, 0.5, -0.5, 1.0, -1.0, 0.25, -0.25, 0.75] * 4
OTHER_LATENT = [-number for number in EXAMPLE_LATENT]


ENCODER = "SHA-256 of the encoder. Vectors of different digests are never comparable."
_RATES = ", ".join(map(str, RATES))


class NoOptions(Record):
    """The query of an operation that has no options."""


class EncodeOptions(Record):
    variance: bool = Field(False, description="Give `log_variances` too (variational models).")
    encoding: Literal["float", "base64"] = Field("float", description="How JSON holds vectors.")


class SizeOptions(Record):
    size: Literal["model", "original"] = Field(
        "model", description="The model's own size, or each input's."
    )


class ScoreOptions(Record):
    false_positive_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="The share of normal images that may be called anomalous. "
        f"Without it, the lowest of {_RATES} that the calibration can tell.",
    )
    heatmap: bool | Literal["overlay"] = Field(
        False,
        description="`true` adds `heatmap` and `regions` to the results; "
        "with `overlay` the heatmap is blended over the image, and the regions are outlined.",
    )


class InterpolationOptions(Record):
    steps: int = Field(
        8, ge=2, description="Images on the path, both ends included; a JSON body may say it too."
    )
    method: Literal["linear", "spherical"] = Field(
        "linear", description="The path; a JSON body may say it too."
    )


class SampleRequest(Record):
    model_config = ConfigDict(strict=True)

    count: int = Field(1, ge=1, description="Images to draw.")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="The same seed gives the same images."
    )
    temperature: float = Field(
        1.0, ge=0, le=10, description="Scales the prior's standard deviations."
    )


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    version: int
    warnings: list[str] | None = Field(
        None,
        description="Sentences about images that hardly suit the model, such as those in colour "
        "where it takes grey ones; absent where there are none.",
    )


class EncodeAnswer(Answer):
    latents: list[list[float]] | list[str] = Field(
        description="With `encoding=base64` little-endian float32."
    )
    log_variances: list[list[float]] | list[str] | None = Field(
        None, description="With `variance=true`."
    )
    encoder: str = Field(description=ENCODER)


class ImagesAnswer(Answer):
    images: list[str] = Field(description="PNG, in base64.")


class ReconstructAnswer(ImagesAnswer):
    errors: list[float] = Field(description="Mean squared error of each image on the 0..1 scale.")


class InterpolateAnswer(ImagesAnswer):
    latents: list[list[float]]


class SampleAnswer(InterpolateAnswer):
    seed: int


class RegionBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    x: int
    y: int
    width: int
    height: int
    score: float


class Score(BaseModel):
    model_config = ConfigDict(extra="forbid")

    score: float
    p_value: float
    threshold: float | None = Field(
        description="The lowest anomalous score; null where the calibration cannot tell the rate."
    )
    is_anomaly: bool | None = Field(description="null where there is no threshold.")
    reason: str | None = Field(None, description="Why there is no verdict; absent if there is one.")
    heatmap: str | None = Field(
        None, description="PNG in base64, of the input's size; with `heatmap=true` or `overlay`."
    )
    regions: list[RegionBody] | None = Field(
        None, description="In pixels of the input; with `heatmap=true` or `overlay`."
    )


class ScoreAnswer(Answer):
    results: list[Score]
    false_positive_rate: float = Field(
        description=f"As asked, else the lowest of {_RATES} that the calibration can tell."
    )
    method: str


class Class(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: str = Field(description="The likeliest class.")
    probability: float
    probabilities: dict[str, float] = Field(description="Of every class; they add up to 1.")


class ClassifyAnswer(Answer):
    results: list[Class]


class CalibrationCard(BaseModel):
    method: str
    images: int = Field(description="Normal images that the score was calibrated on.")
    quantiles: dict[str, float] = Field(description="Quantiles of their scores.")


class Card(BaseModel):
    name: str
    version: int
    versions: list[int]
    description: str
    architecture: str
    capabilities: list[str]
    input: InputSpec
    latent_dim: int
    metrics: dict[str, float]
    calibration: CalibrationCard | None
    classes: list[str] = Field(description="That `classify` tells apart.")
    training_data: TrainingData
    sha256: dict[str, str]
    encoder: str | None = Field(description="SHA-256 of the encoder; null without one.")
    weak: str | None = Field(None, description="Why a detector with weak trials was published.")
    execution_provider: str


class Cards(BaseModel):
    models: list[Card]


class Health(BaseModel):
    status: Literal["ok", "ready", "not ready", "draining"]
    models: dict[str, list[int]] | None = None
    failed: dict[str, str] | None = None


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_PROBLEM_ITEM = {
    "type": "object",
    "properties": {
        "index": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
    "required": ["index", "code", "detail"],
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": _PROBLEM_ITEM},
    },
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "additionalProperties": False,
}
_STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_VECTORS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "minItems": 1}


def _json(properties: dict[str, Any], example: dict[str, Any], *required: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {JSON: {"schema": schema, "example": example}}


_PARTS = {"type": "array", "items": {"type": "string", "format": "binary"}}
_MULTIPART = {
    MULTIPART: {
        "schema": {"type": "object", "properties": {"images": _PARTS}, "required": ["images"]}
    }
}
_IMAGES = {
    **_json({"images": _STRINGS}, {"images": [EXAMPLE_IMAGE]}, "images"),
    **_MULTIPART,
    **dict.fromkeys(IMAGE_TYPES, _BINARY),
    NPY: _BINARY,
}

_PASTE = """Pasted into a shell, with the address of the service and any image at hand:

    curl ADDRESS/PATH -H 'Content-Type: image/png' --data-binary @image.png
    curl ADDRESS/PATH -F images=@image.png -F images=@other.jpg
    curl ADDRESS/PATH -H 'Content-Type: application/x-npy' --data-binary @images.npy

where `images.npy` was written by `numpy.save` and holds uint8 (n, height, width[, channels]) at the model's size."""

IMAGES_BODY = {"requestBody": {"required": True, "description": _PASTE, "content": _IMAGES}}
LATENTS_BODY = {
    "requestBody": {
        "required": True,
        "description": "Latent vectors; as npy float32 (n, latent_dim), written by `numpy.save`.",
        "content": {
            **_json({"latents": _VECTORS}, {"latents": [EXAMPLE_LATENT]}, "latents"),
            NPY: _BINARY,
        },
    }
}
SAMPLE_BODY = {
    "requestBody": {
        "content": _json(
            SampleRequest.model_json_schema()["properties"],
            {"count": 4, "seed": 7, "temperature": 1.0},
        )
    }
}
_INTERPOLATE_PROPERTIES = {
    "latents": _VECTORS,
    "images": _STRINGS,
    **InterpolationOptions.model_json_schema()["properties"],
}
_INTERPOLATE_EXAMPLE = {"latents": [EXAMPLE_LATENT, OTHER_LATENT], "steps": 8, "method": "linear"}
INTERPOLATE_BODY = {
    "requestBody": {
        "required": True,
        "description": _PASTE,
        "content": {**_IMAGES, **_json(_INTERPOLATE_PROPERTIES, _INTERPOLATE_EXAMPLE)},
    }
}


def gives(
    model: type[BaseModel], *others: str, headers: Mapping[str, str] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The answer of an operation: JSON, and what else can be accepted."""
    answer: dict[str, Any] = {"model": model, "content": dict.fromkeys(others, _BINARY)}
    if headers:
        text = {"schema": {"type": "string"}}
        answer["headers"] = {name: {"description": said, **text} for name, said in headers.items()}
    return {200: answer}
