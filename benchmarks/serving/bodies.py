"""Bodies of requests: pictures, and one or many of them in the format of each server."""

import base64
import io
import json
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

from benchmarks.serving.load import Request

NPY = "application/x-npy"


def draw_picture(height: int, width: int, kind: str) -> bytes:
    """Draw a smooth picture and encode it, because codecs are not made for noise."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = (np.sin(12 * x + 5 * y) + np.cos(9 * y * x) + 2) / 4
    grey = (waves * 255).astype(np.uint8)
    is_digit = kind == "PNG" and height == 28
    array = grey if is_digit else np.stack([grey, grey[::-1], 255 - grey], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def npy(path: str, pixels: np.ndarray, *, both_ways: bool = False) -> Request:
    """Request with an array of pixels; `both_ways` requests an array in the response, too."""
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return Request(path, NPY, buffer.getvalue(), (("Accept", NPY),) if both_ways else ())


def in_json(path: str, images: Sequence[bytes]) -> Request:
    """Request with encoded images in JSON."""
    document = {"images": [base64.b64encode(image).decode() for image in images]}
    return Request(path, "application/json", json.dumps(document).encode())


def multipart(
    path: str, images: Sequence[bytes], field: str = "images", media_type: str = "image/png"
) -> Request:
    """Request with encoded images in the parts of a multipart body."""
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="image"'
    head = f"--x\r\n{disposition}\r\nContent-Type: {media_type}\r\n\r\n"
    body = b"".join(head.encode() + image + b"\r\n" for image in images) + b"--x--\r\n"
    return Request(path, "multipart/form-data; boundary=x", body)


def inference_json(images: Sequence[bytes]) -> Request:
    """Request with encoded images in the JSON of the open inference protocol, version 2."""
    texts = [base64.b64encode(image).decode() for image in images]
    tensor = {"name": "image", "shape": [len(images), 1], "datatype": "BYTES"}
    document = {"inputs": [tensor | {"parameters": {"content_type": "base64"}, "data": texts}]}
    return Request("/v2/models/score/infer", "application/json", json.dumps(document).encode())


def inference_images(images: Sequence[bytes]) -> Request:
    """Request with encoded images in the binary form of the same protocol."""
    data = b"".join(struct.pack("<I", len(image)) + image for image in images)
    return _inference_binary("score", "BYTES", [len(images), 1], data)


def inference_pixels(pixels: np.ndarray) -> Request:
    """Request with pixels in the binary form of the same protocol."""
    return _inference_binary("pixels", "UINT8", list(pixels.shape), pixels.tobytes())


def _inference_binary(model: str, kind: str, shape: Sequence[int], data: bytes) -> Request:
    tensor = {
        "name": "image",
        "shape": shape,
        "datatype": kind,
        "parameters": {"binary_data_size": len(data)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    length = (("Inference-Header-Content-Length", str(len(head))),)
    return Request(f"/v2/models/{model}/infer", "application/octet-stream", head + data, length)
