import re
from pathlib import Path

import numpy as np
import pytest

from service.api import schemas
from service.registry.drift import compute_psi
from service.telemetry.metrics import Metrics
from tests.service.api.helpers import NPY, TINY, application, entries, npy


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
    assert not any(of in line and "score" in line for line in before)
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


def test_errors_and_phases_are_counted(models: Path) -> None:
    client, _ = application(models)
    image = {"images": [schemas.EXAMPLE_IMAGE]}
    with client:
        client.post(f"{TINY}/encode", json=image)
        client.post(f"{TINY}/encode", content=b"garbage", headers={"Content-Type": "image/png"})
        for index in range(3):
            client.post(f"/v1/models/unknown{index}/encode", json=image)
            client.get(f"/unknown/{index}")
        lines = client.get("/metrics").text.splitlines()
    for line in (
        'ae_errors_total{code="invalid_image"} 1.0',
        'ae_errors_total{code="model_not_found"} 3.0',
        'ae_errors_total{code="not_found"} 3.0',
        'ae_phase_seconds_count{phase="inference"} 1.0',
        "ae_queued_images 0.0",
    ):
        assert line in lines
    assert not [line for line in lines if "unknown" in line]
    assert any(line.startswith("process_open_fds ") for line in lines)


def test_rejections_are_counted_by_reason(models: Path) -> None:
    client, services = application(models, max_queued_images=16, max_images=8, max_share=0.5)
    image, admission = {"images": [schemas.EXAMPLE_IMAGE]}, services.admission
    with client:
        for held in (admission.admit(16), admission.admit(8, "tiny"), admission.hold(2**30)):
            with held:
                client.post(f"{TINY}/encode", json=image)
        admission.drain()
        client.post(f"{TINY}/encode", json=image)
        client.post("/v2/repository/models/tiny/load")
        lines = client.get("/metrics").text.splitlines()
    for reason in ("images", "share", "bytes", "shutdown"):
        assert f'ae_rejections_total{{reason="{reason}"}} 1.0' in lines
    for code, count in (("overloaded", 3), ("shutting_down", 1), ("not_controlled", 1)):
        assert f'ae_errors_total{{code="{code}"}} {count}.0' in lines


def test_the_rate_of_a_key_counts_on_all_paths(models: Path) -> None:
    client, services = application(models, api_keys=entries({"k": ["admin"]}, rate=1))
    headers = {"Authorization": "Bearer k"}
    with client:
        for path in ("/v2/repository/index", "/v2/repository/index", "/v2/repository/index"):
            client.post(path, headers=headers)
    text = services.metrics.export().decode()
    rejected = re.search(r'ae_rejections_total\{reason="rate"\} (\d)', text)
    limited = re.search(r'ae_errors_total\{code="rate_limited"\} (\d)', text)
    assert rejected
    assert limited
    assert rejected[1] == limited[1]


def test_failed_bundles_are_metrics(models: Path) -> None:
    client, _ = application(models)
    with client:
        assert 'ae_model_failure{model="broken",version="1"} 1.0' in client.get("/metrics").text


def test_a_thousand_models_have_series_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.telemetry.metrics.MAX_MODELS", 2)
    metrics = Metrics(compute_psi)
    for model in ("a", "b", "c", "d", "a"):
        metrics.count_request(("encode", model), 200, 0.1)
        metrics.count_batch(model, 1, 0.1)
        metrics.count_load(model, True)
    text = metrics.export().decode()
    for model, count in (("a", 2.0), ("b", 1.0), ("other", 2.0)):
        assert (
            f'ae_requests_total{{model="{model}",operation="encode",status="200"}} {count}' in text
        )
        assert f'ae_batch_images_count{{model="{model}"}} {count}' in text
        assert f'ae_model_loads_total{{model="{model}",result="ready"}} {count}' in text
    assert 'model="c"' not in text
