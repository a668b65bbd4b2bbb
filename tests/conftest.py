from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from service.app import build_services, create_app
from service.settings import Settings
from tests.bundles import write_bundle

DATA = Path(__file__).parent / "data"
MODELS = Path(__file__).parents[1] / "models"


USE_PUBLISHED = {
    f"tests/training/{name}.py"
    for name in (
        "evaluation/test_graph_metrics",
        "evaluation/test_report",
        "pipeline/test_evaluate",
        "pipeline/test_republish",
        "pipeline/test_train",
    )
}


class Scheduling(LoadFileScheduling):
    """Gives each file to one worker, and files that share a costly fixture to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        if file.startswith("tests/page/"):
            return "page"  # a browser and a server
        return "published" if file in USE_PUBLISHED else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def operators_parsed_once() -> Iterator[None]:
    """Let torch's exporter parse its operators once, which takes longer than a small export."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib))
        )
        yield


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AE_{name.upper()}", raising=False)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` in versions 1 and 2, the variational `tiny-vae`, and `broken`, which lacks a file."""
    directory = tmp_path_factory.mktemp("models")
    write_bundle(directory, "tiny", 1)
    write_bundle(directory, "tiny", 2, mixture=True)
    write_bundle(
        directory, "tiny-vae", variational=True, capabilities=("encode", "decode", "sample")
    )
    (write_bundle(directory, "broken") / "decoder.onnx").unlink()
    return directory


@pytest.fixture(scope="session")
def client(models: Path) -> Iterator[TestClient]:
    settings = Settings(
        models=models, device="cpu", max_images=8, max_body_bytes=100_000, max_image_pixels=10_000
    )
    with TestClient(create_app(build_services(settings)), raise_server_exceptions=False) as client:
        yield client
