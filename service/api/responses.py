"""Responses of operations: arrays in JSON, npy or PNG, as negotiated."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from bundle import imaging
from bundle.errors import InvalidParameter
from bundle.manifest import InputSpec
from bundle.tensors import Array, Pixels
from service.api.media_types import JSON, NPY, PNG
from service.operations import ClassifyResult, ScoreResult
from service.registry.served_model import ServedModel


def render_json(model: ServedModel, warnings: Sequence[str] = (), **fields: Any) -> Response:
    """Return a JSON response that names the model and its version; arrays become lists."""
    body = {"model": model.manifest.name, "version": model.manifest.version, **fields}
    if warnings:
        body["warnings"] = warnings
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)


def render_npy(array: Array) -> Response:
    """Return a response with one array as npy."""
    header = _build_npy_header(array.shape, array.dtype)
    return Response(header + array.tobytes(), media_type=NPY)


@lru_cache(maxsize=64)  # because numpy formats and pads a Python literal
def _build_npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the header of an array in C order."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def render_images(
    media_type: str, model: ServedModel, pixels: Sequence[Pixels], **fields: Any
) -> Response:
    """Return images in the negotiated media type; JSON holds `fields` too.

    Raises InvalidParameter if images of several sizes are requested as npy or PNG.
    """
    if media_type == JSON:
        return render_json(model, images=[encode_base64_png(image) for image in pixels], **fields)
    if len({image.shape for image in pixels}) > 1:
        raise InvalidParameter(
            f"size=original gives several sizes, which {media_type} cannot hold; accept {JSON}"
        )
    if media_type == PNG:
        return Response(imaging.encode_png(tile(pixels)), media_type=PNG)
    return render_npy(np.stack(pixels))


def restore_sizes(
    original: bool, pixels: Pixels, sizes: Sequence[tuple[int, int]], spec: InputSpec
) -> Sequence[Pixels]:
    """Return the images as they are, or with `original` each resized to its (height, width)."""
    if not original:
        return list(pixels)
    return [imaging.resize(image, size, spec) for image, size in zip(pixels, sizes, strict=True)]


def count_pixels(original: bool, at_models: Pixels, sizes: Sequence[tuple[int, int]]) -> int:
    """Count the pixels that `restore_sizes` returns."""
    return sum(height * width for height, width in sizes) if original else at_models.size


def encode_base64_png(pixels: Pixels) -> str:
    """Return an image as PNG in base64."""
    return base64.b64encode(imaging.encode_png(pixels)).decode("ascii")


def encode_base64_floats(vector: Array) -> str:
    """Return a vector as little-endian float32 in base64."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def format_classes(result: ClassifyResult) -> list[dict[str, Any]]:
    """Return the likeliest class of each image, and the probabilities of all classes."""
    rows = [dict(zip(result.classes, row.tolist(), strict=True)) for row in result.probabilities]
    labels = [max(row, key=row.__getitem__) for row in rows]
    return [
        {"label": label, "probability": row[label], "probabilities": row}
        for label, row in zip(labels, rows, strict=True)
    ]


def format_scores(result: ScoreResult) -> list[dict[str, Any]]:
    """Return the verdict of each image or the reason for none, with its pictures and regions."""
    reason = {"reason": result.reason} if result.reason else {}
    results = [verdict._asdict() | reason for verdict in result.verdicts]
    for entry, located in zip(results, result.localised or [], strict=False):
        picture = located.overlay or located.heatmap or b""
        entry["heatmap"] = base64.b64encode(picture).decode("ascii")
        entry["regions"] = [asdict(region) for region in located.regions]
    return results


def tile(images: Sequence[Pixels]) -> Pixels:
    """Arrange images of one size in a nearly square grid, row by row; empty cells are black."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width, channels = images[0].shape
    grid = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    grid[: len(images)] = images
    stacked = grid.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return stacked.reshape(rows * height, columns * width, channels)
