"""Model repository extension: index, load and unload while the service runs."""

import shutil
from pathlib import Path

import pytest

from tests.bundles import write_bundle
from tests.service.api.helpers import PNG, TINY, application, entries, png

REPOSITORY = "/v2/repository"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_bundle(tmp_path, "tiny", 1)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    return tmp_path


def test_the_index_lists_every_version(directory: Path) -> None:
    client, _ = application(directory)
    with client:
        assert client.post(f"{REPOSITORY}/index").json() == [
            {
                "name": "broken",
                "version": "1",
                "state": "UNAVAILABLE",
                "reason": "there is no manifest.json: the bundle is incomplete",
            },
            {"name": "tiny", "version": "1", "state": "READY", "reason": ""},
        ]


def test_a_new_version_is_loaded_by_a_request_and_unloaded(directory: Path) -> None:
    client, services = application(directory, model_control="explicit")
    with client:
        first = client.post(f"{TINY}/encode", content=png(), headers=PNG)
        write_bundle(directory, "tiny", 2, mixture=True)
        loaded = client.post(f"{REPOSITORY}/models/tiny/load")
        assert (loaded.status_code, loaded.json()) == (200, {"name": "tiny", "versions": [1, 2]})
        second = client.post(f"{TINY}/encode", content=png(), headers=PNG)
        assert (first.json()["version"], second.json()["version"]) == (1, 2)
        assert second.headers["x-bundle"] == services.registry.get("tiny").digest
        assert first.headers["x-bundle"] != second.headers["x-bundle"]
        assert client.post(f"{REPOSITORY}/models/tiny/unload").json()["versions"] == []
        assert client.get("/readyz").status_code == 503
        assert client.post(f"{TINY}/encode", content=png(), headers=PNG).status_code == 404


def test_a_bad_version_is_refused_and_the_old_one_stays(directory: Path) -> None:
    client, _ = application(directory, model_control="explicit")
    with client:
        bad = write_bundle(directory, "tiny", 2)
        (bad / "decoder.onnx").write_bytes(b"damaged")
        response = client.post(f"{REPOSITORY}/models/tiny/load")
        assert response.status_code == 400
        assert response.json()["error"].startswith("tiny/2: decoder.onnx is damaged")
        assert str(directory) not in response.text
        assert client.get(TINY).json()["version"] == 1
        assert "tiny/2" in client.get("/readyz").json()["failed"]
        lines = client.get("/metrics").text.splitlines()
        assert 'ae_model_loads_total{model="tiny",result="failed"} 1.0' in lines
        shutil.rmtree(bad)
        assert client.post(f"{REPOSITORY}/models/tiny/load").status_code == 200


def test_errors_have_the_shape_of_the_protocol(directory: Path) -> None:
    client, _ = application(directory, model_control="explicit")
    with client:
        for path, status in (("models/none/load", 404), ("models/none/unload", 404), ("x", 404)):
            response = client.post(f"{REPOSITORY}/{path}")
            assert response.status_code == status
            assert list(response.json()) == ["error"]
        assert client.get(f"{REPOSITORY}/index").status_code == 405


@pytest.mark.parametrize("control", ["none", "poll"])
def test_requests_control_models_only_if_they_are_asked_to(directory: Path, control: str) -> None:
    client, _ = application(directory, model_control=control)
    with client:
        for action in ("load", "unload"):
            response = client.post(f"{REPOSITORY}/models/tiny/{action}")
            assert response.status_code == 409
            assert f"AE_MODEL_CONTROL is {control}" in response.json()["error"]


def test_load_and_metrics_need_rights_of_their_own(directory: Path) -> None:
    keys = entries({"all": ["*"], "boss": ["admin"], "scraper": ["metrics"]})
    client, _ = application(directory, model_control="explicit", api_keys=keys)
    load, metrics = f"{REPOSITORY}/models/tiny/load", "/metrics"
    with client:

        def status(method: str, path: str, key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return client.request(method, path, headers=headers).status_code

        assert [status("POST", load, key) for key in ("all", "boss", "none")] == [403, 200, 401]
        assert [status("GET", metrics, key) for key in ("all", "scraper")] == [403, 200]
        assert status("POST", f"{REPOSITORY}/index", "all") == 200
