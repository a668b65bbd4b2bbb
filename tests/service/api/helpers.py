"""Helpers of the tests over HTTP."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from service.api.dependencies import Services
from service.app import build_services, create_app
from service.keys import KeyEntry, Right, compute_key_digest
from service.settings import Settings

TINY = "/v1/models/tiny"
PNG = {"Content-Type": "image/png"}
NPY = {"Content-Type": "application/x-npy"}
JSON = {"Content-Type": "application/json"}


def png(size: tuple[int, int] = (6, 4), image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, image_format)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def check_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["code"]) == (status, code), document
    assert response.headers["content-type"] == "application/problem+json"
    assert set(document) - {"errors"} == {"type", "title", "status", "detail", "code", "request_id"}
    assert document["status"] == status
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["detail"]
    for item in document.get("errors", []):
        assert set(item) == {"index", "code", "detail"}
    return document


def entries(keys: Mapping[str, Sequence[Right]], rate: int | None = None) -> dict[str, KeyEntry]:
    """Entries of keys that are named after themselves."""
    return {
        key: KeyEntry(
            sha256=compute_key_digest(key), rights=tuple(rights), requests_per_second=rate
        )
        for key, rights in keys.items()
    }


def application(models: Any, **settings: Any) -> tuple[TestClient, Services]:
    services = build_services(Settings(models=models, device="cpu", **settings))
    return TestClient(create_app(services), raise_server_exceptions=False), services
