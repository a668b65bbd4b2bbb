"""Answers: arrays to JSON, npy or PNG, as was negotiated."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from bundle import imaging
from bundle.errors import InvalidParameter
from bundle.manifest import InputSpec
from bundle.tensors import Array, Pixels
from service.api import responses
from service.api.media_types import JSON, NPY, PNG
from service.operations import Classified, Scored
from service.registry.loaded_model import LoadedModel


def as_json(model: LoadedModel, warnings: Sequence[str] = (), **fields: Any) -> Response:
    """A JSON answer that says which model and version gave it; arrays become lists."""
    body = {"model": model.manifest.name, "version": model.manifest.version, **fields}
    if warnings:
        body["warnings"] = warnings
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)


def as_npy(array: Array) -> Response:
    buffer = io.BytesIO()
    np.lib.format.write_array(
        buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
    )
    return Response(buffer.getvalue(), media_type=NPY)


def images(kind: str, model: LoadedModel, pixels: Sequence[Pixels], **fields: Any) -> Response:
    """Images in the negotiated type; `fields` stand beside them in JSON.

    Raises InvalidParameter where images of several sizes are asked for as one array or one picture.
    """
    if kind == JSON:
        return as_json(model, images=[base64_png(image) for image in pixels], **fields)
    if len({image.shape for image in pixels}) > 1:
        raise InvalidParameter(
            f"size=original gives several sizes, which {kind} cannot hold; accept {JSON}"
        )
    if kind == PNG:
        return Response(imaging.encode_png(responses.tile(pixels)), media_type=PNG)
    return as_npy(np.stack(pixels))


def at_size(
    original: bool, pixels: Pixels, sizes: Sequence[tuple[int, int]], spec: InputSpec
) -> Sequence[Pixels]:
    """The images as they are, or with `original` each at its own of the sizes."""
    if not original:
        return list(pixels)
    return [imaging.resize(image, size, spec) for image, size in zip(pixels, sizes, strict=True)]


def pixels(original: bool, at_models: Pixels, sizes: Sequence[tuple[int, int]]) -> int:
    """How many pixels `at_size` gives."""
    return sum(height * width for height, width in sizes) if original else at_models.size


def base64_png(pixels: Pixels) -> str:
    return base64.b64encode(imaging.encode_png(pixels)).decode("ascii")


def base64_floats(vector: Array) -> str:
    """Little-endian float32."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def classified(found: Classified) -> list[dict[str, Any]]:
    """For each image its likeliest class, and the probability of every one."""
    rows = [dict(zip(found.classes, row.tolist(), strict=True)) for row in found.probabilities]
    labels = [max(row, key=row.__getitem__) for row in rows]
    return [
        {"label": label, "probability": row[label], "probabilities": row}
        for label, row in zip(labels, rows, strict=True)
    ]


def scored(found: Scored) -> list[dict[str, Any]]:
    """For each image its verdict or the reason for none; heatmap and regions if asked for."""
    reason = {"reason": found.reason} if found.reason else {}
    results = [verdict._asdict() | reason for verdict in found.verdicts]
    for result, located in zip(results, found.localised or [], strict=False):
        picture = located.overlay or located.heatmap or b""
        result["heatmap"] = base64.b64encode(picture).decode("ascii")
        result["regions"] = [asdict(region) for region in located.regions]
    return results


def tile(images: Sequence[Pixels]) -> Pixels:
    """Put images of one size in a grid, as square as it gets, row by row; cells that are left over stay black."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width, channels = images[0].shape
    grid = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    grid[: len(images)] = images
    stacked = grid.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return stacked.reshape(rows * height, columns * width, channels)
