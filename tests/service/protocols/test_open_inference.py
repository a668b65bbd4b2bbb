import base64
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api import schemas
from service.errors import DeviceLost
from tests.service.api.helpers import TINY, application, entries

TINY_V2 = "/v2/models/tiny"
IMAGE = base64.b64decode(schemas.EXAMPLE_IMAGE)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 6), dtype=np.uint8)
Compress = Callable[[bytes], bytes]


def infer(client: TestClient, model: str = "tiny", **body: Any) -> Any:
    return client.post(f"/v2/models/{model}/infer", json=body)


def as_bytes(*images: bytes) -> dict[str, Any]:
    texts = [base64.b64encode(image).decode() for image in images]
    return {"name": "images", "shape": [len(images)], "datatype": "BYTES", "data": texts}


def as_array(pixels: np.ndarray) -> dict[str, Any]:
    return {
        "name": "images",
        "shape": list(pixels.shape),
        "datatype": "UINT8",
        "data": pixels.ravel().tolist(),
    }


def binary(header: dict[str, Any], *blobs: bytes) -> tuple[bytes, dict[str, str]]:
    """The body of a request with bytes behind its JSON, and its headers."""
    text = json.dumps(header).encode()
    return b"".join([text, *blobs]), {"Inference-Header-Content-Length": str(len(text))}


def read_outputs(response: Any) -> dict[str, np.ndarray]:
    """The outputs of a response, in JSON or bytes."""
    dtypes = {"FP32": "<f4", "UINT8": "u1", "BOOL": "?"}
    length = response.headers.get("inference-header-content-length")
    body, rest = response.content, b""
    if length is not None:
        body, rest = response.content[: int(length)], response.content[int(length) :]
    outputs = {}
    for output in json.loads(body)["outputs"]:
        dtype, shape = np.dtype(dtypes[output["datatype"]]), output["shape"]
        if "data" in output:
            outputs[output["name"]] = np.array(output["data"], dtype).reshape(shape)
        else:
            size = output["parameters"]["binary_data_size"]
            outputs[output["name"]] = np.frombuffer(rest[:size], dtype).reshape(shape)
            rest = rest[size:]
    assert not rest
    return outputs


def test_the_server_its_models_and_their_versions_have_metadata(client: TestClient) -> None:
    server = client.get("/v2").json()
    assert server["extensions"] == ["binary_tensor_data", "model_repository"]
    assert client.get(TINY_V2).json() == {
        "name": "tiny",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "latents", "datatype": "FP32", "shape": [-1, 8]}],
    }
    scored = client.get("/v2/models/tiny.anomaly-score/versions/1").json()
    assert [output["name"] for output in scored["outputs"]] == ["scores", "p_values", "is_anomaly"]
    assert client.get(f"{TINY_V2}/versions/1/ready").json() == {"name": "tiny", "ready": True}
    assert client.get(f"{TINY_V2}/ready").status_code == 200
    assert client.get("/v2/models/other/ready").status_code == 404


def test_health_is_that_of_the_probes(models: Path) -> None:
    client, services = application(models)
    with client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        services.executor.lose(DeviceLost("the device failed"))
        for probe in ("live", "ready"):
            assert client.get(f"/v2/health/{probe}").status_code == 503


def test_a_bare_name_encodes(client: TestClient) -> None:
    response = infer(client, id="mine", inputs=[as_bytes(IMAGE, IMAGE)])
    latents = client.post(f"{TINY}/encode", json={"images": [schemas.EXAMPLE_IMAGE] * 2})
    document = response.json()
    assert document["id"] == "mine"
    assert (document["model_name"], document["model_version"]) == ("tiny", "2")
    expected = np.array(latents.json()["latents"], np.float32)
    np.testing.assert_array_equal(read_outputs(response)["latents"], expected)


def test_a_version_can_be_named(client: TestClient) -> None:
    body = {"inputs": [as_array(PIXELS)]}
    assert client.post(f"{TINY_V2}/versions/1/infer", json=body).json()["model_version"] == "1"


def test_binary_tensors_equal_json(client: TestClient) -> None:
    plain = read_outputs(infer(client, inputs=[as_array(PIXELS)]))
    tensor: dict[str, Any] = {"name": "images", "shape": list(PIXELS.shape), "datatype": "UINT8"}
    tensor["parameters"] = {"binary_data_size": PIXELS.size}
    for asked in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "latents", "parameters": {"binary_data": True}}]},
    ):
        body, headers = binary({"inputs": [tensor], **asked}, PIXELS.tobytes())
        response = client.post(f"{TINY_V2}/infer", content=body, headers=headers)
        assert response.headers["content-type"] == "application/octet-stream"
        np.testing.assert_array_equal(read_outputs(response)["latents"], plain["latents"])


def test_encoded_images_may_be_binary(client: TestClient) -> None:
    element = len(IMAGE).to_bytes(4, "little") + IMAGE
    tensor: dict[str, Any] = {"name": "images", "shape": [2], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": 2 * len(element)}
    body, headers = binary({"inputs": [tensor]}, element, element)
    response = client.post(f"{TINY_V2}/infer", content=body, headers=headers)
    expected = read_outputs(infer(client, inputs=[as_bytes(IMAGE, IMAGE)]))
    np.testing.assert_array_equal(read_outputs(response)["latents"], expected["latents"])


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_bodies_may_be_compressed(client: TestClient, coding: str, compress: Compress) -> None:
    body = compress(json.dumps({"inputs": [as_bytes(IMAGE)]}).encode())
    headers = {"Content-Encoding": coding}
    assert client.post(f"{TINY_V2}/infer", content=body, headers=headers).status_code == 200
    cut = client.post(f"{TINY_V2}/infer", content=body[:-4], headers=headers)
    assert (cut.status_code, cut.json()["error"][:8]) == (400, "the body")
    bomb = client.post(f"{TINY_V2}/infer", content=compress(bytes(10**6)), headers=headers)
    assert bomb.status_code == 413


def test_every_operation_is_a_model(client: TestClient) -> None:
    latents = [[0.1 * index] * 8 for index in range(2)]
    vectors = {"name": "latents", "shape": [2, 8], "datatype": "FP32", "data": latents}
    images = as_array(PIXELS)
    for operation, inputs, parameters, shapes in (
        ("decode", [vectors], {}, {"images": (2, 4, 6, 1)}),
        ("reconstruct", [images], {}, {"images": (3, 4, 6, 1), "errors": (3,)}),
        ("denoise", [images], {}, {"images": (3, 4, 6, 1)}),
        ("sample", [], {"count": 4, "seed": 1}, {"images": (4, 4, 6, 1), "latents": (4, 8)}),
        ("interpolate", [vectors], {"steps": 5}, {"images": (5, 4, 6, 1), "latents": (5, 8)}),
        ("anomaly-score", [images], {}, {"scores": (3,), "p_values": (3,), "is_anomaly": (3,)}),
        ("classify", [images], {}, {"probabilities": (3, 3)}),
    ):
        response = infer(client, f"tiny.{operation}", inputs=inputs, parameters=parameters)
        found = {name: output.shape for name, output in read_outputs(response).items()}
        assert found == shapes, operation
        described = client.get(f"/v2/models/tiny.{operation}").json()["outputs"]
        assert [output["name"] for output in described] == list(shapes)


def test_outputs_are_those_that_were_requested(client: TestClient) -> None:
    response = infer(
        client, "tiny.reconstruct", inputs=[as_array(PIXELS)], outputs=[{"name": "errors"}]
    )
    assert list(read_outputs(response)) == ["errors"]
    variances = infer(
        client, "tiny-vae", inputs=[as_array(PIXELS)], outputs=[{"name": "log_variances"}]
    )
    assert read_outputs(variances)["log_variances"].shape == (3, 8)


@pytest.mark.parametrize(
    ("model", "body", "status", "message"),
    [
        ("tiny", {"inputs": []}, 422, "the input is 'images', and the request has: none"),
        ("tiny", {"inputs": [as_bytes(b"garbage")]}, 422, "item 0"),
        ("tiny", {"inputs": [as_bytes(IMAGE) | {"shape": [2]}]}, 422, "1 elements"),
        ("tiny", {"inputs": [as_bytes(IMAGE) | {"data": ["*"]}]}, 422, "base64"),
        ("tiny", {"inputs": [as_array(PIXELS) | {"datatype": "INT8"}]}, 422, "INT8"),
        ("tiny", {"inputs": [as_array(PIXELS)], "outputs": [{"name": "x"}]}, 422, "no output 'x'"),
        ("tiny.decode", {"inputs": [as_array(PIXELS)]}, 422, "the input is 'latents'"),
        ("tiny", {"inputs": [as_bytes(*[IMAGE] * 9)]}, 413, "9"),
        ("other", {"inputs": []}, 404, "no model 'other'"),
        ("tiny-vae.classify", {"inputs": []}, 404, "no operation 'classify'"),
        ("tiny", {"inputs": [{"name": "images"}]}, 422, "shape"),
        ("tiny", {"inputs": [as_array(PIXELS) | {"shape": []}]}, 422, "shape"),
        ("tiny", {"inputs": [as_array(PIXELS) | {"shape": [0, 2**31 - 1], "data": []}]}, 422, ""),
        ("tiny", {"inputs": [as_array(PIXELS) | {"data": ["a" * 10**4, *[0] * 71]}]}, 422, "numb"),
        ("tiny", {"inputs": [as_array(PIXELS) | {"data": [0.5] * 72}]}, 422, "integers"),
        ("tiny", {"inputs": [as_array(PIXELS) | {"data": [10**400] * 72}]}, 422, "numbers only"),
        ("tiny", {"inputs": [as_array(PIXELS)] * 2}, 422, "is there 2 times"),
        ("tiny", {"inputs": [], "outputs": [{"name": "latents"}] * 9}, 422, "is there 9 times"),
        ("tiny.sample", {"inputs": [as_array(PIXELS)]}, 422, "no input"),
    ],
)
def test_errors_have_the_shape_of_the_protocol(
    client: TestClient, model: str, body: dict[str, Any], status: int, message: str
) -> None:
    response = infer(client, model, **body)
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("size", "blob", "length"),
    [
        (0, b"", None),
        (72, b"\0" * 71, None),
        (72, b"\0" * 73, None),
        (-1, b"", None),
        (72, b"\0" * 72, "9999"),
    ],
)
def test_bytes_that_contradict_the_json_are_malformed(
    client: TestClient, size: int, blob: bytes, length: str | None
) -> None:
    tensor: dict[str, Any] = {"name": "images", "shape": [3, 4, 6], "datatype": "UINT8"}
    tensor["parameters"] = {"binary_data_size": size}
    body, headers = binary({"inputs": [tensor]}, blob)
    if length:
        headers["Inference-Header-Content-Length"] = length
    response = client.post(f"{TINY_V2}/infer", content=body, headers=headers)
    assert (response.status_code, set(response.json())) == (400, {"error"})


@pytest.mark.parametrize(
    "path", ["/v2/models/tiny/config", "/v2/models/tiny/stats", "/v2/systemsharedmemory/status"]
)
def test_what_is_not_served_says_so(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()) == (
        501,
        {"error": "this part of the protocol is not served"},
    )


def test_keys_permit_the_operation_of_the_name(models: Path) -> None:
    client, _ = application(models, api_keys=entries({"k": ["encode"]}))
    headers = {"Authorization": "Bearer k"}
    body = {"inputs": [as_array(PIXELS)]}
    with client:
        assert client.post(f"{TINY_V2}/infer", json=body, headers=headers).status_code == 200
        scored = client.post("/v2/models/tiny.anomaly-score/infer", json=body, headers=headers)
        assert (scored.status_code, scored.json().keys()) == (403, {"error"})
        assert client.post(f"{TINY_V2}/infer", json=body).status_code == 401
