import io
import zipfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from bundle.manifest import EXAMPLES
from service.api import schemas
from tests.bundles import rewrite_manifest, write_bundle
from tests.service.api.helpers import TINY, application, check_problem, png


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
    assert document["detail"] == "tiny has no anomaly score"


def test_the_examples_are_those_of_the_bundle(with_examples: TestClient) -> None:
    with with_examples as client:
        response = client.get(f"{TINY}/examples")
        assert response.headers["content-type"] == "application/zip"
        assert zipfile.ZipFile(io.BytesIO(response.content)).read("7/000.png") == png()
        assert EXAMPLES in client.get(TINY).json()["sha256"]


def test_a_bundle_without_examples_says_how_to_add_them(client: TestClient) -> None:
    document = check_problem(client.get(f"{TINY}/examples"), 404, "operation_not_supported")
    assert document["detail"] == "tiny has no examples; add them by `add-examples`"
