"""Two workers in one process, each with models of its own, so that they can differ."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import build_services, create_app
from service.settings import Settings
from service.workers import Worker
from tests.bundles import write_bundle
from tests.service.api.helpers import TINY

REPOSITORY = "/v2/repository/models/tiny"


class Workers:
    """Workers whose models are in the directories `1` and `2`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for number in ("1", "2"):
            write_bundle(directory / number, "tiny", 1)
            write_bundle(directory / number, "other", 1)

    @contextmanager
    def start(self, number: int, **settings: Any) -> Iterator[TestClient]:
        made = Settings(
            models=str(self.directory / str(number)),
            device="cpu",
            model_control="explicit",
            **settings,
        )
        services = build_services(made, Worker(number, 2, self.directory))
        with TestClient(create_app(services)) as client:
            yield client


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


def test_readiness_is_that_of_all_workers(workers: Workers) -> None:
    write_bundle(workers.directory / "1", "tiny", 2)
    (workers.directory / "2" / "broken" / "1").mkdir(parents=True)
    with workers.start(1) as one:
        alone = one.get("/readyz").json()
        with workers.start(2) as two:
            found, same = (client.get("/readyz").json() for client in (one, two))
    assert (alone["workers"], alone["models"]) == (1, {"other": [1], "tiny": [1, 2]})
    assert found == same
    assert (found["status"], found["workers"]) == ("ready", 2)
    assert found["models"] == {"other": [1], "tiny": [1]}
    assert list(found["failed"]) == ["broken/1"]


def test_a_load_names_the_failure_of_any_worker(workers: Workers) -> None:
    with workers.start(1) as one, workers.start(2) as two:
        for number in ("1", "2"):
            write_bundle(workers.directory / number, "tiny", 2)
        bad = workers.directory / "2" / "tiny" / "2" / "decoder.onnx"
        bad.write_bytes(b"damaged")
        response = one.post(f"{REPOSITORY}/load")
        assert response.status_code == 400
        assert response.json()["error"].startswith("tiny/2: decoder.onnx is damaged")
        assert [client.get(TINY).json()["version"] for client in (one, two)] == [2, 1]


def test_a_load_or_unload_fails_if_a_worker_that_runs_does_not_respond(workers: Workers) -> None:
    with workers.start(1) as one, socket.socket(socket.AF_UNIX) as hung:
        hung.settimeout(60)
        hung.bind(str(workers.directory / "2.sock"))
        hung.listen()

        def close() -> None:
            for _ in range(2):
                hung.accept()[0].close()

        closing = threading.Thread(target=close)
        closing.start()
        responses = [one.post(f"{REPOSITORY}/{call}") for call in ("load", "unload")]
        closing.join()
    for response in responses:
        assert response.status_code == 400
        assert response.json()["error"] == "worker 2 did not respond; the log says why"


def test_a_worker_that_starts_again_has_unloaded_what_others_have(workers: Workers) -> None:
    with workers.start(1) as one:
        with workers.start(2) as two:
            assert two.post(f"{REPOSITORY}/unload").status_code == 200
            assert [client.get(TINY).status_code for client in (one, two)] == [404, 404]
        with workers.start(2) as two:
            assert two.get(TINY).status_code == 404
            assert one.post(f"{REPOSITORY}/load").status_code == 200
            assert two.get(TINY).status_code == 200
