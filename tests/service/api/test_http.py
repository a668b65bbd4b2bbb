"""Headers of every response, the probes, and the documents."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import build_services, create_app
from service.errors import DeviceLost
from service.settings import Settings
from tests.service.api.helpers import TINY


@pytest.mark.parametrize("path", ["/livez", TINY, "/nowhere", "/docs"])
def test_every_response_has_a_request_id_and_its_timings(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
    part = r"{};dur=\d+\.\d+"
    expected = ", ".join(part.format(name) for name in ("decode", "queue", "inference", "encode"))
    assert re.fullmatch(expected, response.headers["server-timing"])


def test_the_clients_own_request_id_is_kept_if_it_is_sane(client: TestClient) -> None:
    assert (
        client.get("/livez", headers={"X-Request-ID": "order-7.a"}).headers["x-request-id"]
        == "order-7.a"
    )
    for invalid in ("", "a b", "x" * 129, 'a"b'):
        assert (
            client.get("/livez", headers={"X-Request-ID": invalid}).headers["x-request-id"]
            != invalid
        )


def test_readiness_names_loaded_and_failed_models(client: TestClient) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    document = response.json()
    assert document["models"] == {"tiny": [1, 2], "tiny-vae": [1]}
    assert "decoder.onnx cannot be read" in document["failed"]["broken/1"]


def test_without_a_model_the_service_lives_but_is_not_ready(tmp_path: Path) -> None:
    with TestClient(create_app(build_services(Settings(models=tmp_path, device="cpu")))) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.get("/v1/models").json()["models"] == []


def test_probes_fail_after_the_device_is_lost(models: Path) -> None:
    services = build_services(Settings(models=models, device="cpu"))
    with TestClient(create_app(services)) as client:
        assert client.get("/livez").json() == {"status": "ok"}
        services.executor.lose(DeviceLost("the device failed"))
        for probe in ("/livez", "/readyz"):
            response = client.get(probe)
            assert (response.status_code, response.json()["status"]) == (503, "device lost")


def test_the_log_has_one_line_a_request(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.get("/v1/models/a%0Ab", headers={"X-Request-ID": "me"})
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r".* service.access: GET /v1/models/a%0Ab 404 [\d.]+ ms me", line)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("image/*", "image/png"),
        ("application/*", "application/json"),
        ("application/x-npy", "application/x-npy"),
        ("application/json;q=0.5, image/png", "image/png"),
        ("application/json;q=0, */*;q=0.1", "application/x-npy"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("IMAGE/PNG", "image/png"),
    ],
)
def test_accept_picks_the_media_type(client: TestClient, accept: str, expected: str) -> None:
    response = client.post(f"{TINY}/sample", headers={"Accept": accept})
    assert response.headers["content-type"] == expected


def test_several_accept_lines_count_as_one(client: TestClient) -> None:
    response = client.post(
        f"{TINY}/sample", headers=[("Accept", "text/html"), ("Accept", "image/png")]
    )
    assert response.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/v1/models", TINY, "/docs", "/openapi.json"]
)
def test_head_is_get_without_a_body(client: TestClient, path: str) -> None:
    response = client.head(path)
    assert response.status_code == 200
    assert response.headers["x-request-id"]


def test_the_response_names_the_seed_in_every_media_type(client: TestClient) -> None:
    picture = client.post(f"{TINY}/sample", headers={"Accept": "image/png"})
    again = client.post(
        f"{TINY}/sample",
        json={"seed": int(picture.headers["x-seed"])},
        headers={"Accept": "image/png"},
    )
    assert again.content == picture.content


def test_the_docs_load_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    links = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert len(links) == 3
    for link in links:
        assert link.startswith("/swagger/")
        assert client.get(link).status_code == 200


def test_the_docs_name_their_language_and_keep_no_key(client: TestClient) -> None:
    page = client.get("/docs").text
    assert '<html lang="en">' in page
    assert "<title>API of the autoencoder service</title>" in page
    assert '"persistAuthorization": false' in page
