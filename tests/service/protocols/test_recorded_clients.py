"""Requests that other clients sent; `make clients` runs the clients themselves."""

import base64
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.conftest import DATA
from tests.service.protocols.test_open_inference import read_outputs

RECORDED = DATA / "clients"


def replay(client: TestClient, name: str) -> Any:
    """Send a recorded request again."""
    head, body = (RECORDED / name).read_bytes().split(b"\r\n\r\n", 1)
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split()
    headers = dict(line.split(": ", 1) for line in lines)
    return client.request(method, path, content=body, headers=headers)


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("tritonclient-2.73.0.http", "recorded"),
        ("kserve-0.21.0.http", "a2ff8c31-8635-4611-b4e0-def6eabbf90b"),
    ],
)
def test_a_request_of_the_open_inference_protocol_is_served(
    client: TestClient, name: str, identity: str
) -> None:
    response = replay(client, name)
    assert f'"id":"{identity}"'.encode() in response.content
    assert read_outputs(response)["latents"].shape == (2, 8)


def test_a_request_of_the_openai_client_is_served(client: TestClient) -> None:
    data = replay(client, "openai-3.57.0.http").json()["data"]
    vectors = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in data]
    assert [vector.shape for vector in vectors] == [(8,), (8,)]
