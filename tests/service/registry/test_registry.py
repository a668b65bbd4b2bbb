from collections.abc import Mapping
from pathlib import Path

import pytest

from bundle.manifest import GraphName
from service.errors import DeviceError, ModelNotFound, ModelNotReady, VersionNotFound
from service.inference.chain import Chain
from service.inference.session import Session
from service.registry.repository import ModelRepository
from tests.bundles import (
    Rig,
    load_registry,
    write_bundle,
)


def test_the_newest_ready_version_is_the_default(tmp_path: Path) -> None:
    for version in (2, 9, 10):
        write_bundle(tmp_path, "tiny", version)
    registry = load_registry(tmp_path)
    assert registry.get("tiny").manifest.version == 10
    assert registry.get("tiny", "2").manifest.version == 2
    assert registry.versions("tiny") == [2, 9, 10]


def test_a_broken_newest_version_leaves_the_older_one_serving(tmp_path: Path) -> None:
    write_bundle(tmp_path, "tiny", 1)
    (write_bundle(tmp_path, "tiny", 2) / "decoder.onnx").write_bytes(b"")
    registry = load_registry(tmp_path)
    assert registry.get("tiny").manifest.version == 1
    assert "decoder.onnx is damaged" in registry.failures()["tiny/2"]
    with pytest.raises(ModelNotReady):
        registry.get("tiny", "2")


def test_unknown_models_and_versions_are_not_found(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    registry = load_registry(tmp_path)
    with pytest.raises(ModelNotFound, match="there are: tiny"):
        registry.get("other")
    for version in ("2", "x", "-1", "1.0", "9" * 30):
        with pytest.raises(VersionNotFound, match="it has: 1"):
            registry.get("tiny", version)


def test_a_device_that_fails_ends_the_loading(tmp_path: Path) -> None:
    class NoDevice:
        provider = "none"

        def open(self, path: Path) -> Session:
            raise DeviceError(f"no device for {path.name}")

        def chain(self, sessions: Mapping[GraphName, Session], max_batch: int | None) -> Chain:
            raise AssertionError(f"{len(sessions)} graphs were opened, for {max_batch}")

    write_bundle(tmp_path)
    repository = ModelRepository(tmp_path)
    with pytest.raises(DeviceError, match="no device"):
        Rig(repository, NoDevice()).updates.load_all()
