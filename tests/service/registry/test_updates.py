import asyncio
import shutil
from pathlib import Path

import pytest

from bundle.errors import BundleError
from bundle.manifest import PIN
from service.errors import DeviceError, DeviceLost, ModelNotFound, ModelNotReady, VersionNotFound
from service.inference.engine import OnnxEngine
from service.inference.session import Session
from service.registry.repository import BundleLocation, ModelRepository
from tests.bundles import Rig, write_bundle


class Repository:
    """A directory with `tiny` in version 1, and the service's view of it."""

    def __init__(self, models: Path) -> None:
        rig = Rig(ModelRepository(models))
        self.models, self.loads = models, rig.loads
        self.registry, self.updates = rig.registry, rig.updates
        write_bundle(models, "tiny", 1)
        self.updates.load_all()

    def look(self, model: str | None = None) -> None:
        asyncio.run(self.updates.look(model))

    @property
    def version(self) -> int:
        """The version that answers without one in the path."""
        return self.registry.get("tiny").manifest.version


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_new_version_answers_after_a_look(repository: Repository) -> None:
    before = repository.registry.get("tiny")
    write_bundle(repository.models, "tiny", 2)
    write_bundle(repository.models, "other", 1)
    assert repository.version == 1
    repository.look()
    assert repository.version == 2
    assert repository.registry.get("tiny", "1") is before
    assert repository.registry.names() == ["other", "tiny"]
    repository.look()
    assert repository.loads == [("tiny", True), ("other", True), ("tiny", True)]


def test_a_version_that_is_copied_halfway_is_tried_again_when_it_has_changed(
    repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = write_bundle(tmp_path_factory.mktemp("elsewhere"), "tiny", 2)
    half = repository.models / "tiny" / "2"
    half.mkdir()
    shutil.copy(whole / "manifest.json", half)
    for _ in range(3):
        repository.look()
    assert repository.loads == [("tiny", True), ("tiny", False)]
    assert repository.version == 1
    assert "cannot be read" in repository.registry.failures()["tiny/2"]
    with pytest.raises(ModelNotReady):
        repository.registry.get("tiny", "2")
    shutil.copytree(whole, half, dirs_exist_ok=True)
    repository.look()
    assert repository.version == 2
    assert repository.registry.failures() == {}


def test_a_version_that_was_damaged_later_still_serves(repository: Repository) -> None:
    before = repository.registry.get("tiny")
    (repository.models / "tiny" / "1" / "decoder.onnx").write_bytes(b"damaged")
    repository.look()
    assert repository.registry.get("tiny", "1") is before
    assert "decoder.onnx is damaged" in repository.registry.failures()["tiny/1"]


def test_a_version_that_is_published_again_is_swapped(repository: Repository) -> None:
    before = repository.registry.get("tiny")
    shutil.rmtree(repository.models / "tiny" / "1")
    write_bundle(repository.models, "tiny", 1, mixture=True)
    repository.look()
    assert repository.registry.get("tiny").digest != before.digest


def test_what_is_removed_no_longer_answers(repository: Repository) -> None:
    write_bundle(repository.models, "tiny", 2)
    (repository.models / "bad" / "1").mkdir(parents=True)
    repository.look()
    shutil.rmtree(repository.models / "tiny" / "2")
    shutil.rmtree(repository.models / "bad")
    repository.look()
    assert repository.version == 1
    with pytest.raises(VersionNotFound):
        repository.registry.get("tiny", "2")
    with pytest.raises(ModelNotFound):
        repository.registry.get("bad")


def test_a_repository_that_is_gone_changes_nothing(repository: Repository) -> None:
    repository.models.rename(repository.models.with_name("gone"))
    with pytest.raises(BundleError, match="cannot be read"):
        repository.look()
    assert repository.version == 1


def test_a_version_can_be_pinned_and_rolled_back(repository: Repository) -> None:
    pin = repository.models / "tiny" / PIN
    write_bundle(repository.models, "tiny", 2)
    pin.write_text("1\n")
    repository.look()
    assert (repository.version, repository.registry.versions("tiny")) == (1, [1, 2])
    pin.write_text("2")
    repository.look()
    assert repository.version == 2
    for text, reason in (("7", "version 7 does not serve"), ("latest", "holds 'latest'; write")):
        pin.write_text(text)
        repository.look()
        assert repository.version == 2
        assert reason in repository.registry.failures()["tiny/default"]
    pin.unlink()
    repository.look()
    assert repository.registry.failures() == {}


def test_an_unloaded_model_is_loaded_again_only_by_its_name(repository: Repository) -> None:
    asyncio.run(repository.updates.unload("tiny"))
    repository.look()
    assert repository.registry.names() == []
    with pytest.raises(ModelNotFound):
        asyncio.run(repository.updates.unload("tiny"))
    repository.look("tiny")
    assert repository.version == 1


def test_a_device_that_fails_while_it_serves_is_a_failure_of_the_bundle(tmp_path: Path) -> None:
    class FailingEngine(OnnxEngine):
        def open(self, path: Path) -> Session:
            if path.parent.name == "2":
                raise DeviceError("out of memory")
            return super().open(path)

    rig = Rig(ModelRepository(tmp_path), FailingEngine("cpu"))
    updates, registry = rig.updates, rig.registry
    write_bundle(tmp_path, "tiny", 1)
    updates.load_all()
    write_bundle(tmp_path, "tiny", 2, variational=True)
    asyncio.run(updates.look())
    assert registry.get("tiny").manifest.version == 1
    assert registry.failures() == {"tiny/2": "out of memory"}


def test_a_watch_looks_until_it_is_cancelled(repository: Repository) -> None:
    async def watch() -> None:
        task = asyncio.create_task(repository.updates.watch(0.01))
        write_bundle(repository.models, "tiny", 2)
        while repository.version == 1:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(watch(), 60))


class FailingRepository(ModelRepository):
    """A repository that fails unforeseeably after its first listing."""

    def __init__(self, models: Path) -> None:
        super().__init__(models)
        self.listed = 0

    def locations(self) -> list[BundleLocation]:
        self.listed += 1
        if self.listed == 2:
            raise ZeroDivisionError
        return super().locations()


def test_a_look_that_fails_keeps_all_models_and_the_next_one_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_bundle(tmp_path, "tiny", 1)
    rig = Rig(FailingRepository(tmp_path))
    updates, registry = rig.updates, rig.registry
    updates.load_all()
    write_bundle(tmp_path, "tiny", 2)

    async def watch() -> None:
        watching = asyncio.create_task(updates.watch(0.0))
        while registry.versions("tiny") != [1, 2]:
            await asyncio.sleep(0)
        watching.cancel()

    asyncio.run(watch())
    assert "kept all models" in caplog.text


def test_a_device_that_is_lost_while_a_version_is_loaded_is_reported(tmp_path: Path) -> None:
    class LostEngine(OnnxEngine):
        def open(self, _: Path) -> Session:
            raise DeviceLost("the device failed")

    write_bundle(tmp_path, "tiny", 1)
    rig = Rig(ModelRepository(tmp_path), LostEngine("cpu"))
    asyncio.run(rig.updates.look())
    assert [str(error) for error in rig.lost] == ["the device failed"]
