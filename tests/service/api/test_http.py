"""Headers of every response, the probes, and the documents."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from bundle.errors import BundleError, DomainError, ItemError
from service.api import schemas
from service.api.errors import CODES_BY_STATUS, STATUSES
from service.app import build_services, create_app
from service.errors import BulkError, DeviceError, InvalidItems
from service.settings import Settings
from tests.service.api.helpers import NPY, application, npy

TINY = "/v1/models/tiny"


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
        assert client.get("/v1/models").json() == {"models": []}


def test_the_log_has_one_line_a_request(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="service.access"):
        client.get("/v1/models/a%0Ab", headers={"X-Request-ID": "me"})
    (record,) = (record for record in caplog.records if record.name == "service.access")
    assert re.fullmatch(r"GET /v1/models/a%0Ab 404 [\d.]+ ms me", record.getMessage())


def test_metrics_count_requests_batches_and_models(models: Path) -> None:
    client, _ = application(models)
    with client:
        for _ in range(2):
            client.post(f"{TINY}/encode", json={"images": [schemas.EXAMPLE_IMAGE] * 3})
        client.post(f"{TINY}/encode", content=b"garbage", headers={"Content-Type": "image/png"})
        client.post(f"{TINY}/upscale")
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    for line in (
        'ae_requests_total{model="tiny",operation="encode",status="200"} 2.0',
        'ae_requests_total{model="tiny",operation="encode",status="422"} 1.0',
        'ae_requests_total{model="",operation="other",status="404"} 1.0',
        'ae_request_seconds_count{operation="encode"} 3.0',
        'ae_batch_images_sum{model="tiny"} 6.0',
        'ae_batch_seconds_count{model="tiny"} 2.0',
        'ae_model_info{model="tiny",provider="CPUExecutionProvider",version="2"} 1.0',
        "ae_images_in_flight 0.0",
    ):
        assert line in lines


def test_metrics_hold_scores_and_their_drift(models: Path) -> None:
    client, _ = application(models, max_images=150)
    of = 'model="tiny",version="2"'
    with client:
        before = client.get("/metrics").text.splitlines()
        results = []
        for count, rate in ((100, 0.01), (20, 0.5)):
            images = np.random.default_rng(count).integers(0, 256, (count, 4, 6), dtype=np.uint8)
            path = f"{TINY}/anomaly-score?false_positive_rate={rate}"
            results += client.post(path, content=npy(images), headers=NPY).json()["results"]
        after = client.get("/metrics").text.splitlines()
    assert f"ae_scored_images_total{{{of}}} 0.0" in before
    assert not any(line.startswith(f"ae_score_psi{{{of}}}") for line in before)
    p_values = [result["p_value"] for result in results]
    assert f"ae_scored_images_total{{{of}}} 120.0" in after
    assert (
        f"ae_anomalous_images_total{{{of}}} {sum(result['is_anomaly'] for result in results)}.0"
        in after
    )
    for end in ("0.05", "0.5", "1.0"):
        below = sum(p_value <= float(end) for p_value in p_values)
        assert f'ae_p_value_bucket{{le="{end}",{of}}} {below}.0' in after
    assert f"ae_p_value_count{{{of}}} 120.0" in after
    (psi,) = (line for line in after if line.startswith(f"ae_score_psi{{{of}}}"))
    assert float(psi.split()[1]) > 0.25  # noise is not what tiny was calibrated on


def test_every_metric_is_documented(models: Path) -> None:
    client, _ = application(models)
    with client:
        text = client.get("/metrics").text
    documented = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    for name in re.findall(r"# TYPE (ae_\w+)", text):
        assert f"`{name}`" in documented or name.endswith("_created"), name


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


def test_the_root_leads_to_the_docs(client: TestClient) -> None:
    assert (
        client.get("/", headers={"Host": "elsewhere.test"}, follow_redirects=False).headers[
            "location"
        ]
        == "/docs"
    )


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    schema: dict[str, Any] = client.get("/openapi.json").json()
    return schema


def test_every_operation_is_in_the_openapi_document_with_and_without_version(
    document: dict[str, Any],
) -> None:
    operations = (
        "encode",
        "decode",
        "reconstruct",
        "denoise",
        "sample",
        "anomaly-score",
        "interpolate",
        "classify",
    )
    for prefix in ("/v1/models/{model}", "/v1/models/{model}/versions/{version}"):
        assert {f"{prefix}/{operation}" for operation in operations} | {prefix} <= set(
            document["paths"]
        )
    assert {"/livez", "/readyz", "/v1/models"} <= set(document["paths"])


def test_every_reference_in_the_openapi_document_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names
    assert names <= set(document["components"]["schemas"])


def test_json_responses_have_the_documented_types(client: TestClient) -> None:
    image = {"images": [schemas.EXAMPLE_IMAGE]}
    for path, body, model in (
        ("encode", image, schemas.EncodeAnswer),
        ("encode?encoding=base64", image, schemas.EncodeAnswer),
        ("reconstruct", image, schemas.ReconstructAnswer),
        ("denoise", image, schemas.ImagesAnswer),
        ("anomaly-score?heatmap=true", image, schemas.ScoreAnswer),
        ("anomaly-score?heatmap=overlay", image, schemas.ScoreAnswer),
        ("anomaly-score?false_positive_rate=0.001", image, schemas.ScoreAnswer),
        ("sample", {"count": 2}, schemas.SampleAnswer),
        ("decode", {"latents": [[0] * 8]}, schemas.ImagesAnswer),
        ("interpolate", {"images": image["images"] * 2}, schemas.InterpolateAnswer),
        ("classify", image, schemas.ClassifyAnswer),
    ):
        model.model_validate_json(client.post(f"{TINY}/{path}", json=body).content)


def test_the_openapi_document_lists_the_codes_of_every_status(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/models/{model}/encode"]["post"]["responses"]
    for problem in STATUSES.values():
        assert f"`{problem.code}`" in responses[str(problem.status)]["description"]
    assert set(responses["429"]["headers"]) == {"X-Request-ID", "Server-Timing", "Retry-After"}


def test_the_openapi_document_describes_options_and_encoder(document: dict[str, Any]) -> None:
    encode = document["paths"]["/v1/models/{model}/encode"]["post"]
    assert "never comparable" in encode["description"]
    header = encode["responses"]["200"]["headers"]["X-Encoder"]
    assert "never comparable" in header["description"]
    fields = document["components"]["schemas"]["EncodeAnswer"]["properties"]
    assert "never comparable" in fields["encoder"]["description"]
    score = document["paths"]["/v1/models/{model}/anomaly-score"]["post"]
    options = {each["name"]: each for each in score["parameters"]}
    assert {"type": "boolean"} in options["heatmap"]["schema"]["anyOf"]
    assert "overlay" in [each.get("const") for each in options["heatmap"]["schema"]["anyOf"]]
    assert not options["false_positive_rate"]["required"]
    assert "default" not in options["false_positive_rate"]["schema"]


def test_every_domain_error_has_a_status() -> None:
    def leaves(kind: type[DomainError]) -> set[type[DomainError]]:
        below = kind.__subclasses__()
        return set().union(*map(leaves, below)) if below else {kind}

    # Raised while loading, by no request, or by training, which other tests may have imported.
    elsewhere = {BundleError, DeviceError} | leaves(BulkError)
    raised = leaves(DomainError) - elsewhere - {InvalidItems, ItemError}
    of_requests = {kind for kind in raised if not kind.__module__.startswith("training")}
    assert of_requests == set(STATUSES)
    assert set(CODES_BY_STATUS.values()) == {"not_found", "method_not_allowed"}
