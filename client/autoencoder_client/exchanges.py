"""Requests of each operation and the meaning of their responses, without any input or output.

An exchange is a generator that yields requests and is sent their replies. `Client` and
`AsyncClient` run it.
"""

import base64
import itertools
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
from PIL import Image

from autoencoder_client.errors import InvalidRequest, InvalidResponse, ServiceError
from autoencoder_client.images import Images, decode, encode
from autoencoder_client.results import (
    Classification,
    ClassProbabilities,
    Encoding,
    Floats,
    Pictures,
    Pixels,
    Reconstruction,
    Sampling,
    Score,
    Scoring,
)

Result = TypeVar("Result")
Document = dict[str, Any]
Picture = Literal["heatmap", "overlay"]
PICTURES: Mapping[Picture, str] = {"heatmap": "true", "overlay": "overlay"}  # in a query
OLDER_LIMITS = {"max_images": 64, "max_body_bytes": 2**24}  # of a service that names none
PART_BYTES = 256  # of the head of a part, at most
IMAGE_CODES = (
    "invalid_image",
    "image_too_large",
    "payload_too_large",
    "unsupported_media_type",
)


class Request(NamedTuple):
    """A request: its JSON document, or the images of its parts."""

    method: str
    path: str
    params: Mapping[str, str] = {}
    document: Document | None = None
    images: Sequence[bytes] = ()


class Reply(NamedTuple):
    """The status and the body of a response, and the identity and the URL of its request."""

    status: int
    body: bytes
    request_id: str
    url: str

    def parse(self) -> Document:
        """Return the JSON of the body. Raises InvalidResponse."""
        try:
            document = json.loads(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise InvalidResponse(
                f"{self.url} sent an invalid response: {self.status} without a JSON object; "
                "check the URL"
            )
        return document

    def parse_problem(self) -> Document:
        """Return the document of an error; a proxy may have sent it without JSON."""
        try:
            return self.parse()
        except InvalidResponse:
            return {"detail": self.body[:200].decode("utf-8", "replace")}

    def build_error(self) -> ServiceError:
        """Return the error of the response."""
        document = self.parse_problem()
        code, detail = document.get("code", "unknown"), document.get("detail", "no detail")
        return ServiceError(self.status, str(code), str(detail), self.request_id, self.url)


Exchange = Generator[Request, Reply, Result]


class Limits(NamedTuple):
    """Maximum images and bytes of a request."""

    images: int
    bytes: int


Split = Callable[[Document], Sequence[Any]]  # a response into the results of its images


@dataclass
class Collected:
    """Results by the positions of their images, the failures, and the last document."""

    count: int
    results: dict[int, Any] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    document: Document = field(default_factory=dict)

    def name_version(self, model: str) -> str:
        """Return the path of the version that responded first, because others may differ."""
        version = self.document.get("version")
        return model if version is None or "/versions/" in model else f"{model}/versions/{version}"

    def add(self, images: Mapping[int, bytes], document: Document, split: Split) -> None:
        """Add the results of images. Raises ValueError if the response does not fit them."""
        results = split(document)
        if len(results) != len(images):
            raise ValueError(f"{len(results)} results for {len(images)} images")
        self.results.update(zip(images, results, strict=True))
        self.document = document

    def stack(self, name: str) -> Floats:
        """Return a value of each result, NaN for failed images."""
        rows = [np.asarray(each[name], np.float32) for each in self.results.values()]
        shape = rows[0].shape if rows else ()
        stacked = np.full((self.count, *shape), np.nan, np.float32)
        for index, row in zip(self.results, rows, strict=True):
            stacked[index] = row
        return stacked


class Exchanges:
    """The exchanges of a client, which learn the limits of the service once."""

    def __init__(self) -> None:
        self._limits: Limits | None = None

    def models(self) -> Exchange[list[Document]]:
        """Fetch the cards of all models."""
        document = yield from _call(Request("GET", "/v1/models"))
        limits = document.get("limits", OLDER_LIMITS)
        self._limits = Limits(limits["max_images"], limits["max_body_bytes"])
        models: list[Document] = document["models"]
        return models

    def model(self, name: str) -> Exchange[Document]:
        """Fetch the card of a model."""
        return (yield from _call(Request("GET", _build_path(name))))

    def encode(self, model: str, images: Images) -> Exchange[Encoding]:
        """Encode images to latents."""
        collected = yield from self._send(model, "encode", images, _split_by("latents"))
        encoder = str(collected.document.get("encoder", ""))
        return Encoding(collected.stack("latents"), encoder, collected.failures)

    def score(
        self, model: str, images: Images, rate: float | None, picture: Picture | None
    ) -> Exchange[Scoring]:
        """Score how anomalous images are."""
        params = {} if rate is None else {"false_positive_rate": str(rate)}
        if picture:
            params["heatmap"] = PICTURES[picture]
        collected = yield from self._send(model, "anomaly-score", images, _get_results, params)
        scores = {index: _read_score(each) for index, each in collected.results.items()}
        found = float(collected.document.get("false_positive_rate", "nan"))
        return Scoring(scores, found, collected.failures)

    def classify(self, model: str, images: Images) -> Exchange[Classification]:
        """Classify images."""
        collected = yield from self._send(model, "classify", images, _get_results)
        results = {
            index: ClassProbabilities(each["label"], each["probability"], each["probabilities"])
            for index, each in collected.results.items()
        }
        return Classification(results, collected.failures)

    def reconstruct(self, model: str, images: Images) -> Exchange[Reconstruction]:
        """Encode and decode images."""
        collected = yield from self._send(
            model, "reconstruct", images, _split_by("images", "errors")
        )
        pictures = _read_pictures(collected)
        return Reconstruction(pictures, collected.stack("errors"), collected.failures)

    def denoise(self, model: str, images: Images) -> Exchange[Pictures]:
        """Remove noise from images."""
        collected = yield from self._send(model, "denoise", images, _split_by("images"))
        return Pictures(_read_pictures(collected), collected.failures)

    def decode(self, model: str, latents: Floats) -> Exchange[Pictures]:
        """Decode latents, float32 (n, latent_dim), to images."""
        limits = yield from self._find_limits()
        if not np.isfinite(latents).all():
            raise InvalidRequest("latents must be finite; leave out those of failed images")
        images = []
        for start in range(0, len(latents), limits.images):
            rows = np.asarray(latents[start : start + limits.images], np.float32).tolist()
            document = yield from _call(_post(model, "decode", document={"latents": rows}))
            images += _read_images(document)
        return Pictures(dict(enumerate(images)))

    def sample(
        self, model: str, count: int, seed: int | None, temperature: float
    ) -> Exchange[Sampling]:
        """Draw images."""
        wanted = {"count": count, "seed": seed, "temperature": temperature}
        return _read_sampling((yield from _call(_post(model, "sample", document=wanted))))

    def interpolate(self, model: str, ends: Images, steps: int, method: str) -> Exchange[Sampling]:
        """Walk from one image to another."""
        params = {"steps": str(steps), "method": method}
        _check_several(ends)
        both = [encode(image) for image in ends]
        request = _post(model, "interpolate", params)._replace(images=both)
        return _read_sampling((yield from _call(request)))

    def _find_limits(self) -> Exchange[Limits]:
        if self._limits is None:
            yield from self.models()
        assert self._limits is not None  # because `models` sets it
        return self._limits

    def _send(
        self,
        model: str,
        operation: str,
        images: Images,
        split: Split,
        params: Mapping[str, str] = {},
    ) -> Exchange[Collected]:
        """Send images in requests within the limits, each again without its invalid images."""
        limits = yield from self._find_limits()
        _check_several(images)
        collected, most = Collected(len(images)), limits.images
        for chunk in _split_images(images, limits, collected.failures):
            left = dict(chunk)
            while left:
                some = dict(itertools.islice(left.items(), most))
                target = collected.name_version(model)
                reply = yield _post(target, operation, params)._replace(images=[*some.values()])
                if reply.status == 200:
                    collected.add(some, reply.parse(), split)
                    done = set(some)
                elif invalid := _find_invalid(reply, [*some]):
                    collected.failures.update(invalid)
                    done = set(invalid)
                elif reply.status == 413 and len(some) > 1:  # their pictures are too large together
                    most, done = len(some) // 2, set()
                else:
                    raise reply.build_error()
                left = {index: left[index] for index in left if index not in done}
        return collected


def _check_several(images: Any) -> None:
    """Raise InvalidRequest for one image in place of several."""
    if isinstance(images, str | bytes | Path | Image.Image) or (
        isinstance(images, np.ndarray) and images.ndim < 3
    ):
        raise InvalidRequest("one image was given; send a list of images")


def _split_images(
    images: Images, limits: Limits, failures: dict[int, str]
) -> Iterator[dict[int, bytes]]:
    """Yield encoded images by their positions, in chunks; unreadable images are failures."""
    chunk: dict[int, bytes] = {}
    size = 0
    for index in range(len(images)):
        try:
            data = encode(images[index])
        except InvalidRequest as error:
            failures[index] = str(error)
            continue
        cost = len(data) + PART_BYTES
        if cost > limits.bytes:
            failures[index] = f"the image has {len(data)} bytes; a request has {limits.bytes}"
            continue
        if chunk and (len(chunk) == limits.images or size + cost > limits.bytes):
            yield chunk
            chunk, size = {}, 0
        chunk[index] = data
        size += cost
    if chunk:
        yield chunk


def _post(
    model: str, operation: str, params: Mapping[str, str] = {}, document: Document | None = None
) -> Request:
    return Request("POST", f"{_build_path(model)}/{operation}", params, document)


def _build_path(model: str) -> str:
    return f"/v1/models/{quote(model, safe='/')}"


def _call(request: Request) -> Exchange[Document]:
    reply = yield request
    if reply.status != 200:
        raise reply.build_error()
    return reply.parse()


def _find_invalid(reply: Reply, positions: Sequence[int]) -> dict[int, str]:
    """Return the reasons of invalid images by their positions; a single image is the cause."""
    if reply.status not in (413, 415, 422):
        return {}
    document = reply.parse_problem()
    items = document.get("errors") or []
    if not items and len(positions) == 1 and document.get("code") in IMAGE_CODES:
        return {positions[0]: str(document.get("detail"))}
    return {positions[item["index"]]: str(item["detail"]) for item in items}


def _split_by(*names: str) -> Split:
    """Return a function that gives each image its own values of some lists of a response."""

    def split(document: Document) -> Sequence[Document]:
        columns = [document[name] for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    return split


def _get_results(document: Document) -> Sequence[Document]:
    results: list[Document] = document["results"]
    return results


def _read_score(result: Document) -> Score:
    picture = result.get("heatmap")
    return Score(
        result["score"],
        result["p_value"],
        result["threshold"],
        result["is_anomaly"],
        result.get("reason"),
        base64.b64decode(picture) if picture else None,
        result.get("regions", ()),
    )


def _read_pictures(collected: Collected) -> dict[int, Pixels]:
    return {
        index: decode(base64.b64decode(each["images"])) for index, each in collected.results.items()
    }


def _read_images(document: Document) -> list[Pixels]:
    return [decode(base64.b64decode(text)) for text in document["images"]]


def _read_sampling(document: Document) -> Sampling:
    images = _read_images(document)
    return Sampling(images, np.array(document["latents"], np.float32), document.get("seed"))
