"""Models that lack parts, over HTTP: calibration images, a decoder, or all but an encoder."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service import cli
from service.api import schemas
from tests.bundles import ALL, DETECTOR_SPEC, LATENT_DIM, write_bundle, write_detector
from tests.service.api.helpers import NPY, application, check_problem, npy

SMALL = np.random.default_rng(0).integers(0, 256, (2, 4, 6), dtype=np.uint8)
LARGE = np.random.default_rng(1).integers(0, 256, (7, *DETECTOR_SPEC.shape[:2]), dtype=np.uint8)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("parts")
    write_bundle(directory, "embedder", graphs=("encoder",))
    write_bundle(directory, "few", calibration_size=30)
    write_bundle(directory, "fewest", calibration_size=3)
    selection = {"score": ("a",), "map": ("a",), "compared": {}, "weak": "the trials were few"}
    write_detector(directory, selection=selection)
    return directory


@pytest.fixture(scope="module")
def client(parts: Path) -> Iterator[TestClient]:
    client, _ = application(parts, max_images=8)
    with client:
        yield client


def score(
    client: TestClient,
    model: str,
    query: str = "",
    images: np.ndarray = SMALL,
) -> dict[str, Any]:
    path = f"/v1/models/{model}/anomaly-score{query}"
    response = client.post(path, content=npy(images), headers=NPY)
    assert response.status_code == 200, response.text
    schemas.ScoreResponse.model_validate_json(response.content)
    document: dict[str, Any] = response.json()
    return document


def test_the_default_rate_is_the_lowest_that_gives_verdicts(client: TestClient) -> None:
    document = score(client, "few")
    assert document["false_positive_rate"] == 0.05
    for result in document["results"]:
        assert set(result) == {"score", "p_value", "threshold", "is_anomaly"}
        assert result["is_anomaly"] is (result["p_value"] <= 0.05)


def test_the_rate_that_the_reason_advises_gives_verdicts(client: TestClient) -> None:
    document = score(client, "few", "?false_positive_rate=0.01")
    assert document["false_positive_rate"] == 0.01
    for result in document["results"]:
        assert result["is_anomaly"] is result["threshold"] is None
        assert result["reason"].startswith("30 calibration images allow no rate below 0.033: ")
        found = re.search(r"set false_positive_rate to ([\d.]+) or more", result["reason"])
        assert found is not None
        again = score(client, "few", f"?false_positive_rate={found[1]}")
        assert all(each["is_anomaly"] is not None for each in again["results"])
        assert not any("reason" in each for each in again["results"])


def test_without_an_allowed_rate_drift_counts_no_anomalies(client: TestClient) -> None:
    document = score(client, "fewest")
    assert document["false_positive_rate"] == 0.2
    assert document["results"][0]["is_anomaly"] is None
    assert "set false_positive_rate to 0.25 or more" in document["results"][0]["reason"]
    lines = client.get("/metrics").text.splitlines()
    assert 'ae_scored_images_total{model="fewest",version="1"} 2.0' in lines
    assert 'ae_anomalous_images_total{model="fewest",version="1"} 0.0' in lines


def test_an_encoder_alone_is_served(client: TestClient) -> None:
    path = "/v1/models/embedder"
    card = client.get(path).json()
    assert card["capabilities"] == ["encode"]
    assert (card["calibration"], card["classes"], card["weak"]) == (None, [], None)
    document = client.post(f"{path}/encode", content=npy(SMALL), headers=NPY).json()
    assert np.shape(document["latents"]) == (2, LATENT_DIM)
    assert document["encoder"] == card["encoder"]
    assert client.get("/readyz").json()["models"]["embedder"] == [1]
    assert 'ae_scored_images_total{model="embedder"' not in client.get("/metrics").text
    for operation in ALL:
        if operation == "encode":
            continue
        body: dict[str, Any] = {"content": npy(SMALL), "headers": NPY}
        if operation == "decode":
            body = {"json": {"latents": [[0.0] * LATENT_DIM]}}
        if operation == "sample":
            body = {}
        refused = client.post(f"{path}/{operation}", **body)
        detail = check_problem(refused, 404, "operation_not_supported")["detail"]
        assert detail == f"embedder was not trained to {operation}; it can: encode"


def test_a_detector_scores_more_images_than_one_run_takes(client: TestClient) -> None:
    results = score(client, "detector", "?heatmap=overlay", LARGE)["results"]
    assert len(results) == len(LARGE) > 2
    for image, result in zip(LARGE, results, strict=True):
        unit = image / 255
        means = unit.reshape(2, 8, 3, 8).mean(axis=(1, 3)).repeat(8, axis=0).repeat(8, axis=1)
        assert result["score"] == pytest.approx(np.square(unit - means).max(), rel=1e-4)
        picture = Image.open(io.BytesIO(base64.b64decode(result["heatmap"])))
        assert picture.size == (DETECTOR_SPEC.width, DETECTOR_SPEC.height)


def test_a_detector_has_neither_decoder_nor_reconstructions(client: TestClient) -> None:
    path = "/v1/models/detector"
    latents = client.post(f"{path}/encode", content=npy(LARGE), headers=NPY).json()["latents"]
    assert np.shape(latents) == (len(LARGE), LATENT_DIM)
    decoded = client.post(f"{path}/decode", json={"latents": latents})
    check_problem(decoded, 404, "operation_not_supported")
    rebuilt = client.post(f"{path}/reconstruct", content=npy(LARGE), headers=NPY)
    check_problem(rebuilt, 404, "operation_not_supported")
    assert client.get(path).json()["weak"] == "the trials were few"


def test_check_names_the_operations_of_such_models(
    parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "--models", str(parts), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "embedder version 1: works on CPUExecutionProvider: encode\n" in printed
    assert "detector version 1: works on CPUExecutionProvider: encode, anomaly-score\n" in printed


def test_overlays_are_bounded_as_heatmaps_are(parts: Path) -> None:
    client, _ = application(parts, max_output_pixels=1000)
    buffer = io.BytesIO()
    Image.new("L", (40, 30)).save(buffer, "PNG")
    with client:
        for query in ("heatmap=true", "heatmap=overlay"):
            response = client.post(
                f"/v1/models/few/anomaly-score?{query}",
                content=buffer.getvalue(),
                headers={"Content-Type": "image/png"},
            )
            check_problem(response, 413, "image_too_large")
