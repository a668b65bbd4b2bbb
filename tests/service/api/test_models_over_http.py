import io
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from bundle.manifest import EXAMPLES
from service.api import schemas
from tests.bundles import rewrite_manifest, write_bundle
from tests.service.api.helpers import TINY, application, check_problem, entries, png


@pytest.fixture
def with_examples(tmp_path: Path) -> TestClient:
    directory = write_bundle(tmp_path)
    with zipfile.ZipFile(directory / EXAMPLES, "w") as archive:
        archive.writestr("7/000.png", png())
    rewrite_manifest(directory)
    return application(tmp_path)[0]


def test_the_calibration_has_all_scores_in_ascending_order(client: TestClient) -> None:
    found = schemas.CalibrationScores.model_validate_json(client.get(f"{TINY}/calibration").content)
    assert (found.model, found.version, len(found.scores)) == ("tiny", 2, 99)
    assert found.scores == sorted(found.scores)
    assert client.get(f"{TINY}/versions/1/calibration").json()["version"] == 1


def test_a_model_without_a_score_has_no_calibration(tmp_path: Path) -> None:
    write_bundle(tmp_path, graphs=("encoder",))
    client = application(tmp_path)[0]
    document = check_problem(client.get(f"{TINY}/calibration"), 404, "operation_not_supported")
    assert document["detail"] == "tiny was not trained to anomaly-score; it can: encode"


def test_the_examples_are_those_of_the_bundle(with_examples: TestClient) -> None:
    with with_examples as client:
        response = client.get(f"{TINY}/examples")
        assert response.headers["content-type"] == "application/zip"
        assert zipfile.ZipFile(io.BytesIO(response.content)).read("7/000.png") == png()
        assert EXAMPLES in client.get(TINY).json()["sha256"]


def test_examples_that_are_gone_are_an_error_with_a_body(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path)
    (directory / EXAMPLES).write_bytes(b"zip")
    rewrite_manifest(directory)
    with application(tmp_path)[0] as client:
        assert client.get(f"{TINY}/examples").content == b"zip"
        (directory / EXAMPLES).unlink()
        document = check_problem(client.get(f"{TINY}/examples"), 503, "model_not_ready")
        assert document["detail"].startswith("examples.zip of tiny is gone")


def test_a_bundle_without_examples_says_how_to_add_them(client: TestClient) -> None:
    document = check_problem(client.get(f"{TINY}/examples"), 404, "examples_not_found")
    assert "python -m training add-examples tiny" in document["detail"]


def test_examples_need_a_key_of_any_operation(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    keys = entries({"encoder": ["encode"], "monitor": ["metrics"], "every": ["*"]})
    client, _ = application(tmp_path, api_keys=keys)
    statuses = {
        key: client.get(f"{TINY}/examples", headers={"Authorization": f"Bearer {key}"}).status_code
        for key in keys
    }
    assert statuses == {"encoder": 404, "monitor": 403, "every": 404}
