"""Bodies in the OpenAPI document, with examples that work when pasted.

`service.api.responses` writes responses. These types only describe them, and the tests compare
both.
"""

import base64
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bundle.conformal import RATES
from bundle.manifest import InputSpec, Record, TrainingData
from service.api.media_types import IMAGE_TYPES, JSON, MULTIPART, NPY, ZIP
from service.operations import MAX_SEED

EXAMPLE_IMAGE = base64.b64encode(
    resources.files("service.api").joinpath("example.png").read_bytes()
).decode("ascii")
EXAMPLE_LATENT = [0.0, 0.5, -0.5, 1.0, -1.0, 0.25, -0.25, 0.75] * 4
OTHER_LATENT = [-number for number in EXAMPLE_LATENT]

ENCODER_DESCRIPTION = "SHA-256 of the encoder. Vectors of different digests are never comparable."
_RATES = ", ".join(map(str, RATES))


class NoOptions(Record):
    """Query of an operation without options."""


class EncodeOptions(Record):
    """Options of `encode`."""

    variance: bool = Field(False, description="Adds `log_variances` (variational models).")
    encoding: Literal["float", "base64"] = Field(
        "float", description="Encoding of vectors in JSON."
    )


class SizeOptions(Record):
    """Size of the resulting images."""

    size: Literal["model", "original"] = Field(
        "model", description="Size of the results: of the model, or of each input."
    )


class ScoreOptions(Record):
    """Options of `anomaly-score`."""

    false_positive_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of normal images that may be called anomalous. "
        f"Default: the lowest of {_RATES} that the calibration allows.",
    )
    heatmap: bool | Literal["overlay"] = Field(
        False,
        description="`true` adds `heatmap` and `regions` to the results; "
        "with `overlay` the heatmap is blended over the image, and the regions are outlined.",
    )


class InterpolationOptions(Record):
    """Options of `interpolate`."""

    steps: int = Field(
        8, ge=2, description="Images on the path, both ends included; also in a JSON body."
    )
    method: Literal["linear", "spherical"] = Field(
        "linear", description="Shape of the path; also in a JSON body."
    )


class SampleRequest(Record):
    """Options of `sample`."""

    model_config = ConfigDict(strict=True)

    count: int = Field(1, ge=1, description="Images to draw.")
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Seed of the random generator; equal seeds give equal images.",
    )
    temperature: float = Field(
        1.0, ge=0, le=10, description="Scales the prior's standard deviations."
    )


class Answer(BaseModel):
    """Fields that all JSON responses share."""

    model_config = ConfigDict(extra="forbid")

    model: str
    version: int
    warnings: list[str] | None = Field(
        None,
        description="Sentences about unsuitable images, such as colour images for a model of grey "
        "images; absent if there are none.",
    )


class EncodeAnswer(Answer):
    """Latent vectors of images."""

    latents: list[list[float]] | list[str] = Field(
        description="Lists of numbers; with `encoding=base64` little-endian float32."
    )
    log_variances: list[list[float]] | list[str] | None = Field(
        None, description="Present with `variance=true`."
    )
    encoder: str = Field(description=ENCODER_DESCRIPTION)


class ImagesAnswer(Answer):
    """Images."""

    images: list[str] = Field(description="PNG, in base64.")


class ReconstructAnswer(ImagesAnswer):
    """Reconstructed images and their errors."""

    errors: list[float] = Field(description="Mean squared error of each image on the 0..1 scale.")


class InterpolateAnswer(ImagesAnswer):
    """Images on a path, and their latent vectors."""

    latents: list[list[float]]


class SampleAnswer(InterpolateAnswer):
    """Drawn images, their latent vectors and the seed."""

    seed: int


class RegionBody(BaseModel):
    """Box of an anomaly, and the largest error in it."""

    model_config = ConfigDict(extra="forbid")

    x: int
    y: int
    width: int
    height: int
    score: float


class Score(BaseModel):
    """Verdict on one image."""

    model_config = ConfigDict(extra="forbid")

    score: float
    p_value: float
    threshold: float | None = Field(
        description="The lowest anomalous score; null if the calibration does not allow the rate."
    )
    is_anomaly: bool | None = Field(description="null if there is no threshold.")
    reason: str | None = Field(
        None, description="Reason for no verdict; absent if there is a verdict."
    )
    heatmap: str | None = Field(
        None, description="PNG in base64, of the input's size; with `heatmap=true` or `overlay`."
    )
    regions: list[RegionBody] | None = Field(
        None, description="In pixels of the input; with `heatmap=true` or `overlay`."
    )


class ScoreAnswer(Answer):
    """Verdicts on images."""

    results: list[Score]
    false_positive_rate: float = Field(
        description=f"As requested, else the lowest of {_RATES} that the calibration allows."
    )
    method: str


class Class(BaseModel):
    """Class of one image."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(description="The likeliest class.")
    probability: float
    probabilities: dict[str, float] = Field(
        description="Probability of each class; their sum is 1."
    )


class ClassifyAnswer(Answer):
    """Classes of images."""

    results: list[Class]


class CalibrationCard(BaseModel):
    """Calibration of an anomaly score."""

    method: str
    images: int = Field(description="Normal images that the score was calibrated on.")
    quantiles: dict[str, float] = Field(description="Quantiles of the scores of these images.")


class CalibrationScores(BaseModel):
    """Anomaly scores of the normal images that a model was calibrated on."""

    model: str
    version: int
    method: str = Field(description="Name of the score.")
    scores: list[float] = Field(description="Ascending; one for each image.")


class Card(BaseModel):
    """Card of a model."""

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
    classes: list[str] = Field(description="Names of the classes of `classify`.")
    training_data: TrainingData
    sha256: dict[str, str]
    encoder: str | None = Field(description="SHA-256 of the encoder; null without one.")
    weak: str | None = Field(
        None, description="Reason why a detector's trials were weak; null if they were not."
    )
    execution_provider: str


class RequestLimits(BaseModel):
    """Maximum images, and bytes of the body, of a request."""

    max_images: int
    max_body_bytes: int


class Cards(BaseModel):
    """Cards of models, and the limits of requests to them."""

    models: list[Card]
    limits: RequestLimits


HealthStatus = Literal["ok", "ready", "not ready", "draining", "device lost"]


class Health(BaseModel):
    """State of the service."""

    status: HealthStatus
    models: dict[str, list[int]] | None = None
    open: dict[str, list[int]] | None = None
    failed: dict[str, str] | None = None
    workers: int | None = None


class RepositoryEntry(BaseModel):
    """Version of a model in the repository; `reason` says why it failed to load, or is empty."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class V2Error(BaseModel):
    """Error of the Open Inference Protocol."""

    error: str


def describe_v2_errors(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route of the Open Inference Protocol in OpenAPI."""
    return {
        status: {"model": V2Error, "description": description}
        for status, description in descriptions.items()
    }


class Loaded(BaseModel):
    """Versions of a model that are loaded."""

    name: str
    versions: list[int]


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
EXAMPLES_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The images.", "content": {ZIP: _BINARY}}
}
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
OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": "null"},
                "code": {"type": "string"},
            },
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}
_STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_VECTORS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "minItems": 1}


def _describe_json(
    properties: dict[str, Any], example: dict[str, Any], *required: str
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {JSON: {"schema": schema, "example": example}}


_PARTS = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}


def _describe_parts(parts: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"images": parts},
        "required": ["images"],
        "additionalProperties": False,
    }
    return {MULTIPART: {"schema": schema}}


_IMAGES = {
    **_describe_json({"images": _STRINGS}, {"images": [EXAMPLE_IMAGE]}, "images"),
    **_describe_parts(_PARTS),
    **dict.fromkeys(IMAGE_TYPES, _BINARY),
    NPY: _BINARY,
}

_EXAMPLES = """Examples for a shell, with the address of the service and any image:

    curl ADDRESS/PATH -H 'Content-Type: image/png' --data-binary @image.png
    curl ADDRESS/PATH -F images=@image.png -F images=@other.jpg
    curl ADDRESS/PATH -H 'Content-Type: application/x-npy' --data-binary @images.npy

`numpy.save` wrote `images.npy`, which holds uint8 (n, height, width[, channels]) at the model's
size."""

IMAGES_BODY = {"requestBody": {"required": True, "description": _EXAMPLES, "content": _IMAGES}}
LATENTS_BODY = {
    "requestBody": {
        "required": True,
        "description": "Latent vectors; as npy float32 (n, latent_dim), written by `numpy.save`.",
        "content": {
            **_describe_json({"latents": _VECTORS}, {"latents": [EXAMPLE_LATENT]}, "latents"),
            NPY: _BINARY,
        },
    }
}
SAMPLE_BODY = {
    "requestBody": {
        "content": _describe_json(
            SampleRequest.model_json_schema()["properties"],
            {"count": 4, "seed": 7, "temperature": 1.0},
        )
    }
}
_PAIR = {"minItems": 2, "maxItems": 2}
_INTERPOLATE_PROPERTIES = {
    "latents": _VECTORS | _PAIR,
    "images": _STRINGS | _PAIR,
    **InterpolationOptions.model_json_schema()["properties"],
}
_INTERPOLATE_EXAMPLE = {"latents": [EXAMPLE_LATENT, OTHER_LATENT], "steps": 8, "method": "linear"}
_INTERPOLATE = _describe_json(_INTERPOLATE_PROPERTIES, _INTERPOLATE_EXAMPLE)
_INTERPOLATE[JSON]["schema"]["oneOf"] = [{"required": ["latents"]}, {"required": ["images"]}]
_PAIR_EXAMPLES = """Examples for a shell, with the address of the service and any two images:

    curl ADDRESS/PATH -F images=@image.png -F images=@other.jpg
    curl ADDRESS/PATH -H 'Content-Type: application/x-npy' --data-binary @images.npy

`numpy.save` wrote `images.npy`, which holds two images, uint8 (2, height, width[, channels]) at the
model's size, or two latent vectors, float32 (2, latent_dim)."""
INTERPOLATE_BODY = {
    "requestBody": {
        "required": True,
        "description": _PAIR_EXAMPLES,
        "content": {**_INTERPOLATE, **_describe_parts(_PARTS | _PAIR), NPY: _BINARY},
    }
}


def describe_responses(
    model: type[BaseModel], *others: str, headers: Mapping[str, str] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the responses of an operation in OpenAPI: JSON, and `others` as binary."""
    response: dict[str, Any] = {"model": model, "content": dict.fromkeys(others, _BINARY)}
    if headers:
        text = {"schema": {"type": "string"}}
        response["headers"] = {
            name: {"description": description, **text} for name, description in headers.items()
        }
    return {200: response}
