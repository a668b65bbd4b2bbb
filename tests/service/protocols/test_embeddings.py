import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api import schemas
from tests.service.api.helpers import TINY, application, entries

IMAGE = f"data:image/png;base64,{schemas.EXAMPLE_IMAGE}"


def embed(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/embeddings", json={"model": "tiny", **body})


@pytest.mark.parametrize("path", ["/v1/embeddings", "/openai/v1/embeddings"])
def test_embeddings_are_the_latents_of_encode(client: TestClient, path: str) -> None:
    response = client.post(path, json={"model": "tiny", "input": [IMAGE, IMAGE]})
    latents = client.post(f"{TINY}/encode", json={"images": [schemas.EXAMPLE_IMAGE]})
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": latents.json()["latents"][0]}
            for index in range(2)
        ],
        "model": "tiny",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    assert response.headers["x-encoder"] == latents.headers["x-encoder"]
    assert response.headers["x-bundle"] == latents.headers["x-bundle"]


def test_embeddings_in_base64_are_float32(client: TestClient) -> None:
    floats = embed(client, input=IMAGE).json()["data"][0]["embedding"]
    text = embed(client, input=IMAGE, encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(text), "<f4").tolist() == pytest.approx(floats)


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (
            {"input": "a red flower"},
            422,
            "invalid_image",
            "the input is no image; send a data: URL",
        ),
        ({"input": [IMAGE, "data:,"]}, 422, "invalid_image", "item 1: "),
        ({"input": IMAGE, "dimensions": 2}, 422, "invalid_parameter", "cannot be shortened"),
        ({"input": []}, 422, "invalid_parameter", "empty"),
        ({"input": [IMAGE] * 9}, 413, "too_many_images", "9"),
        ({"input": IMAGE, "model": "other"}, 404, "model_not_found", "no model 'other'"),
        ({"input": IMAGE, "n": 1}, 422, "invalid_parameter", "n: "),
        ({}, 422, "invalid_parameter", "input: "),
        ({"input": 1}, 422, "invalid_image", "the input is no image"),
        ({"input": [1] * 10**4}, 413, "too_many_images", "10000"),
    ],
)
def test_errors_have_the_shape_of_openai(
    client: TestClient, body: dict[str, Any], status: int, code: str, message: str
) -> None:
    response = embed(client, **body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] is None


def test_the_dimensions_of_the_model_may_be_named(client: TestClient) -> None:
    length = client.get(TINY).json()["latent_dim"]
    assert embed(client, input=IMAGE, dimensions=length).status_code == 200


def test_only_json_is_read(client: TestClient) -> None:
    response = client.post("/v1/embeddings", content=b"", headers={"Content-Type": "image/png"})
    assert response.json()["error"]["code"] == "unsupported_media_type"


def test_models_that_embed_are_listed(client: TestClient) -> None:
    listed = client.get("/openai/v1/models").json()
    assert [each["id"] for each in listed["data"]] == ["tiny", "tiny-vae"]
    assert client.get("/openai/v1/models/tiny").json() == listed["data"][0]
    error = client.get("/openai/v1/models/other").json()["error"]
    assert error["code"] == "model_not_found"


def test_keys_and_limits_are_those_of_encode(models: Path) -> None:
    keys = entries({"embedder": ["encode"], "scorer": ["anomaly-score"]})
    client, services = application(models, max_images=8, max_queued_images=16, api_keys=keys)

    def send(key: str) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        body = {"model": "tiny", "input": IMAGE}
        return client.post("/v1/embeddings", json=body, headers=headers)

    with client:
        assert send("embedder").status_code == 200
        assert send("scorer").json()["error"]["code"] == "forbidden"
        assert send("").json()["error"]["code"] == "unauthorized"
        with services.admission.admit(16):
            overloaded = send("embedder")
    assert overloaded.json()["error"]["type"] == "rate_limit_error"
    assert overloaded.headers["retry-after"] == "1"
