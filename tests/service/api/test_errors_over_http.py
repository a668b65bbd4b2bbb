"""Rows of the error table, and the one shape of the body."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from bundle.errors import BundleError, DomainError, ItemError
from service.api.errors import CODES_BY_STATUS, STATUSES
from service.app import build_services, create_app
from service.errors import BulkError, DeviceError, InvalidItems
from service.registry.registry import ModelRegistry
from service.registry.served_model import ServedModel
from service.settings import Settings
from tests.bundles import LATENT_DIM
from tests.service.api.helpers import JSON, NPY, PNG, TINY, application, check_problem, npy, png

MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\n\r\n%s\r\n--b--\r\n'
BOMB = npy(np.zeros((1, 4, 6), np.uint8)).replace(b"(1, 4, 6)", b"(9, 9, 9)")


UNSUPPORTED = "unsupported_media_type"
FAR_APART = b'{"latents": [[%s], [%s]], "method": "spherical"}' % (
    b",".join([b"3e38"] * 8),
    b",".join([b"-3e38"] * 7 + [b"1e30"]),
)


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "code"),
    [
        ("encode", b"{", JSON, 400, "malformed_request"),
        ("encode", b"\xff\xfe", JSON, 400, "malformed_request"),
        ("encode", b"not npy", NPY, 400, "malformed_request"),
        ("encode", b"\x93NUMPY\x09\x00", NPY, 400, "malformed_request"),
        ("encode", BOMB, NPY, 400, "malformed_request"),
        ("encode", npy(np.array([{}], dtype=object)), NPY, 400, "malformed_request"),
        ("encode", npy(np.array(3, np.uint8)), NPY, 400, "malformed_request"),
        ("encode", b"--b\r\nnonsense", MULTIPART, 400, "malformed_request"),
        (
            "encode",
            PART % (b"images", png()),
            {"Content-Type": "multipart/form-data"},
            400,
            "malformed_request",
        ),
        ("encode", PART % (b"file", png()), MULTIPART, 400, "malformed_request"),
        ("encode", b"--b--\r\n", MULTIPART, 422, "invalid_parameter"),
        ("encode", png(), {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ("encode", png(), {}, 415, "unsupported_media_type"),
        ("encode", png(image_format="PPM"), PNG, 415, "unsupported_media_type"),
        ("decode", png(), PNG, 415, "unsupported_media_type"),
        (
            "sample",
            b"count=1",
            {"Content-Type": "application/x-www-form-urlencoded"},
            415,
            "unsupported_media_type",
        ),
        ("encode", png(), PNG | {"Accept": "text/html"}, 406, "not_acceptable"),
        ("encode", png(), PNG | {"Accept": "image/png"}, 406, "not_acceptable"),
        ("anomaly-score", png(), PNG | {"Accept": "image/png"}, 406, "not_acceptable"),
        ("encode", bytes(100_001), PNG, 413, "payload_too_large"),
        ("encode", png((101, 100)), PNG, 413, "image_too_large"),
        ("encode", npy(np.zeros((9, 4, 6), np.uint8)), NPY, 413, "too_many_images"),
        ("decode", npy(np.zeros((9, LATENT_DIM), np.float32)), NPY, 413, "too_many_images"),
        ("sample", b'{"count": 9}', JSON, 413, "too_many_images"),
        (
            "interpolate?steps=9",
            npy(np.zeros((2, LATENT_DIM), np.float32)),
            NPY,
            413,
            "too_many_images",
        ),
        ("encode", b"", PNG, 422, "invalid_image"),
        ("encode", b"garbage", PNG, 422, "invalid_image"),
        ("encode", png()[:-20], PNG, 422, "invalid_image"),
        ("encode", npy(np.zeros((1, 4, 6), np.float32)), NPY, 422, "invalid_image"),
        ("encode", npy(np.zeros((1, 5, 5), np.uint8)), NPY, 422, "invalid_image"),
        ("encode", npy(np.zeros((0, 4, 6), np.uint8)), NPY, 422, "invalid_parameter"),
        ("encode", b'{"images": ["%%%"]}', JSON, 422, "invalid_image"),
        ("encode", b'{"images": [7]}', JSON, 422, "invalid_image"),
        ("encode", b'{"images": []}', JSON, 422, "invalid_parameter"),
        ("encode", b'{"images": "x"}', JSON, 422, "invalid_parameter"),
        ("encode", b"[]", JSON, 422, "invalid_parameter"),
        ("encode", b"{}", JSON, 422, "invalid_parameter"),
        ("encode?variance=true", png(), PNG, 422, "invalid_parameter"),
        ("encode?variance=maybe", png(), PNG, 422, "invalid_parameter"),
        ("encode?encoding=hex", png(), PNG, 422, "invalid_parameter"),
        ("reconstruct?size=huge", png(), PNG, 422, "invalid_parameter"),
        ("anomaly-score?false_positive_rate=0", png(), PNG, 422, "invalid_parameter"),
        ("anomaly-score?false_positive_rate=1", png(), PNG, 422, "invalid_parameter"),
        ("anomaly-score?false_positive_rate=nan", png(), PNG, 422, "invalid_parameter"),
        ("decode", b'{"latents": [[1, 2]]}', JSON, 422, "invalid_latents"),
        ("decode", b'{"latents": [["a"]]}', JSON, 422, "invalid_latents"),
        ("decode", b'{"latents": [1]}', JSON, 422, "invalid_latents"),
        ("decode", b'{"latents": [[NaN,0,0,0,0,0,0,0]]}', JSON, 422, "invalid_latents"),
        ("decode", b'{"latents": [[1e999,0,0,0,0,0,0,0]]}', JSON, 422, "invalid_latents"),
        ("decode", b'{"latents": [[1e39,0,0,0,0,0,0,0]]}', JSON, 422, "invalid_latents"),
        ("decode", npy(np.full((1, LATENT_DIM), np.inf, np.float32)), NPY, 422, "invalid_latents"),
        ("decode", npy(np.zeros((1, LATENT_DIM))), NPY, 422, "invalid_latents"),
        ("decode", npy(np.zeros(LATENT_DIM, np.float32)), NPY, 422, "invalid_latents"),
        ("decode", npy(np.zeros((1, 3), np.float32)), NPY, 422, "invalid_latents"),
        ("sample", b'{"count": 0}', JSON, 422, "invalid_parameter"),
        ("sample", b'{"seed": -1}', JSON, 422, "invalid_parameter"),
        ("sample", b'{"temperature": -1}', JSON, 422, "invalid_parameter"),
        ("sample", b'{"temperature": NaN}', JSON, 422, "invalid_parameter"),
        ("sample", b'{"cuont": 1}', JSON, 422, "invalid_parameter"),
        ("sample", b'{"count": "3"}', JSON, 422, "invalid_parameter"),
        ("sample?count=3", b"", JSON, 422, "invalid_parameter"),
        ("encode?variances=true", png(), PNG, 422, "invalid_parameter"),
        ("anomaly-score", b'{"images": [], "heatmap": true}', JSON, 422, "invalid_parameter"),
        ("encode", b'{"images": [1,1,1,1,1,1,1,1,1]}', JSON, 413, "too_many_images"),
        ("decode", b'{"latents": [[],[],[],[],[],[],[],[],[]]}', JSON, 413, "too_many_images"),
        (
            "decode",
            b'{"latents": [["1","1","1","1","1","1","1","1"]]}',
            JSON,
            422,
            "invalid_latents",
        ),
        (
            "decode",
            b'{"latents": [[true,true,true,true,true,true,true,true]]}',
            JSON,
            422,
            "invalid_latents",
        ),
        ("decode", b'{"latents": [[1,[2],3,4,5,6,7,8]]}', JSON, 422, "invalid_latents"),
        ("decode", b'{"latents": [null]}', JSON, 422, "invalid_latents"),
        ("interpolate", b'{"latents": [], "images": []}', JSON, 422, "invalid_parameter"),
        ("interpolate", FAR_APART, JSON, 422, "invalid_parameter"),
        ("encode", png(), PNG | {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        (
            "encode",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            {"Content-Type": "image/svg+xml"},
            415,
            UNSUPPORTED,
        ),
        ("encode", b"<svg xmlns='http://www.w3.org/2000/svg'/>", PNG, 415, UNSUPPORTED),
        ("encode", b"garbage", {"Content-Type": "image/heic"}, 415, UNSUPPORTED),
        ("encode", b"\0\0\0\x18ftypheic" + bytes(20), PNG, 415, UNSUPPORTED),
        ("encode", png()[:-12], PNG, 422, "invalid_image"),
        (
            "interpolate?steps=1",
            npy(np.zeros((2, LATENT_DIM), np.float32)),
            NPY,
            422,
            "invalid_parameter",
        ),
        ("interpolate", npy(np.zeros((3, LATENT_DIM), np.float32)), NPY, 422, "invalid_parameter"),
        ("interpolate", png(), PNG, 422, "invalid_parameter"),
        ("upscale", png(), PNG, 404, "operation_not_supported"),
        ("versions/3/encode", png(), PNG, 404, "version_not_found"),
        ("versions/x/encode", png(), PNG, 404, "version_not_found"),
    ],
)
def test_bad_requests_get_the_status_and_code_of_the_table(
    client: TestClient, path: str, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    check_problem(client.post(f"{TINY}/{path}", content=content, headers=headers), status, code)


def test_unknown_paths_models_and_methods(client: TestClient) -> None:
    check_problem(client.get("/nowhere"), 404, "not_found")
    check_problem(client.get("/v1/models/other"), 404, "model_not_found")
    check_problem(client.post("/v1/models/other/encode"), 404, "model_not_found")
    check_problem(client.get(f"{TINY}/upscale"), 404, "not_found")
    for path in ("encode", "versions/1/encode"):
        response = client.get(f"{TINY}/{path}")
        check_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"
    check_problem(
        client.post("/v1/models/tiny%2Fencode", content=png(), headers=PNG), 404, "not_found"
    )
    check_problem(client.get("/v1/models/tiny%2fversions/1"), 404, "not_found")
    response = client.delete(TINY)
    check_problem(response, 405, "method_not_allowed")
    assert "GET" in response.headers["allow"]


def test_an_operation_that_the_model_was_not_trained_for(client: TestClient) -> None:
    response = client.post("/v1/models/tiny-vae/denoise", content=png(), headers=PNG)
    assert (
        "it can: encode, decode, sample"
        in check_problem(response, 404, "operation_not_supported")["detail"]
    )


def test_a_model_that_could_not_be_loaded_is_not_ready(client: TestClient) -> None:
    response = client.post("/v1/models/broken/encode", content=png(), headers=PNG)
    check_problem(response, 503, "model_not_ready")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("body", ["multipart", "json"])
def test_each_invalid_image_is_listed_by_its_index(client: TestClient, body: str) -> None:
    import base64

    images = [png(), b"garbage", png((101, 100)), png()]
    if body == "json":
        options: dict[str, Any] = {
            "json": {"images": [base64.b64encode(image).decode() for image in images]}
        }
    else:
        options = {
            "files": [("images", (f"{index}.png", image)) for index, image in enumerate(images)]
        }
    document = check_problem(client.post(f"{TINY}/encode", **options), 422, "invalid_image")
    assert [(item["index"], item["code"]) for item in document["errors"]] == [
        (1, "invalid_image"),
        (2, "image_too_large"),
    ]


def test_the_body_is_counted_and_not_trusted(client: TestClient) -> None:
    def unannounced() -> Any:
        for _ in range(11):
            yield bytes(10_000)

    response = client.post(f"{TINY}/encode", content=unannounced(), headers=PNG)
    check_problem(response, 413, "payload_too_large")


def test_a_full_queue_rejects_with_429_at_once(models: Any) -> None:
    client, services = application(models, max_images=2, max_queued_images=2, max_share=1)
    with client, services.admission.admit(2):
        response = client.post(f"{TINY}/encode", content=png(), headers=PNG)
    check_problem(response, 429, "overloaded")
    assert int(response.headers["retry-after"]) > 0


def test_a_request_past_its_timeout_gets_504(models: Any) -> None:
    client, _ = application(models, request_timeout=1e-9)
    with client:
        check_problem(
            client.post(f"{TINY}/encode", content=png(), headers=PNG), 504, "deadline_exceeded"
        )


def test_while_draining_new_work_is_refused_and_not_ready(models: Any) -> None:
    client, services = application(models)
    with client:
        assert client.get("/readyz").status_code == 200
        services.admission.drain()
        response = client.post(f"{TINY}/encode", content=png(), headers=PNG)
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
    check_problem(response, 503, "shutting_down")
    assert int(response.headers["retry-after"]) > 0


def test_a_defect_is_logged_and_not_shown(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    class DefectiveRegistry(ModelRegistry):
        def get(self, name: str, version: str | None = None) -> ServedModel:
            raise RuntimeError(f"secret of {name}, version {version}")

    services = build_services(Settings(models=models, device="cpu"))
    defective = create_app(replace(services, registry=DefectiveRegistry()))
    client = TestClient(defective, raise_server_exceptions=False)
    with client, caplog.at_level(logging.ERROR):
        response = client.post(f"{TINY}/encode", content=png(), headers=PNG)
    document = check_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert document["request_id"] in caplog.text
    assert "RuntimeError: secret of tiny" in caplog.text


def test_identity_is_no_content_encoding(client: TestClient) -> None:
    headers = PNG | {"Content-Encoding": "identity"}
    assert client.post(f"{TINY}/encode", content=png(), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"latents": [' + b"[]," * 2**20 + b"[]]}",
        b'{"images": [' + b"{}," * 2**20 + b"{}]}",
        b"{" + b",".join(b'"%d":0' % index for index in range(5000)) + b"}",
    ],
)
def test_json_of_too_many_values_is_refused_before_it_is_parsed(models: Path, body: bytes) -> None:
    client, _ = application(models)
    with client:
        for operation in ("encode", "decode", "interpolate"):
            response = client.post(f"{TINY}/{operation}", content=body, headers=JSON)
            check_problem(response, 413, "payload_too_large")


def test_options_are_a_small_body(models: Path) -> None:
    client, _ = application(models)
    with client:
        body = b'{"count": 1' + b" " * 64 * 1024 + b"}"
        response = client.post("/v1/models/tiny-vae/sample", content=body, headers=JSON)
    check_problem(response, 413, "payload_too_large")


def test_the_text_of_an_error_is_bounded(client: TestClient) -> None:
    query = "&".join(f"{'x' * 90}{index}=1" for index in range(50))
    response = client.post(f"{TINY}/encode?{query}", content=png(), headers=PNG)
    document = check_problem(response, 422, "invalid_parameter")
    assert len(document["detail"]) < 1500
    assert document["detail"].endswith("and 40 more")


def test_a_bad_request_does_not_disturb_the_next(client: TestClient) -> None:
    before = client.post(f"{TINY}/encode", content=png(), headers=PNG).json()
    client.post(f"{TINY}/encode", content=b"garbage", headers=PNG)
    assert client.post(f"{TINY}/encode", content=png(), headers=PNG).json() == before


def test_every_domain_error_has_a_status() -> None:
    def leaves(kind: type[DomainError]) -> set[type[DomainError]]:
        below = kind.__subclasses__()
        return set().union(*map(leaves, below)) if below else {kind}

    # Raised while loading, by no request, or by training, which other tests may have imported.
    elsewhere = {DeviceError} | leaves(BundleError) | leaves(BulkError)
    raised = leaves(DomainError) - elsewhere - {InvalidItems, ItemError}
    of_requests = {kind for kind in raised if not kind.__module__.startswith("training")}
    assert of_requests == set(STATUSES)
    assert set(CODES_BY_STATUS.values()) == {"not_found", "method_not_allowed"}
