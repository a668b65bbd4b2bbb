import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bundle.errors import BundleUnavailable, InvalidParameter
from bundle.index import INDEX, BundleIndex, read_digests
from bundle.manifest import MANIFEST
from bundle.stores import BundleStore
from tests.stores import publish_tiny, store_url
from training import cli
from training.pipeline.destinations import ModelsDirectory, ModelsStore, open_destination

__all__ = ["store_url"]


class RecordedStore(BundleStore):
    """A store that records what is written to it, and breaks before the object `broken`."""

    def __init__(self, url: str, broken: str = "") -> None:
        super().__init__(url, create=True)
        self.broken, self.written = broken, list[str]()

    def create(self, path: str, content: bytes) -> bool:
        if path == self.broken:
            raise BundleUnavailable(f"{path}: the connection is lost")
        self.written.append(path)
        return super().create(path, content)


def test_the_manifest_is_written_last(store_url: str, tmp_path: Path) -> None:
    store = RecordedStore(store_url)
    publish_tiny(ModelsStore(store), tmp_path)
    assert store.written[-1] == f"tiny/1/{MANIFEST}"
    assert len(store.written) > 3


def test_a_publication_that_breaks_is_not_seen_and_can_be_repeated(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ModelsStore(RecordedStore(store_url, f"tiny/1/{MANIFEST}"))
    with pytest.raises(
        BundleUnavailable, match="the connection is lost; the bundle is kept"
    ) as end:
        publish_tiny(broken, tmp_path)
    assert BundleStore(store_url).find().bundles == {}
    command = str(end.value).partition("python -m training ")[2].split()
    assert cli.main(command) == 0
    assert f"published {store_url}/tiny/2" in capsys.readouterr().out
    assert {*BundleStore(store_url).find().bundles} == {("tiny", 2)}
    shutil.rmtree(command[1])


def test_only_a_bundle_can_be_published_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["publish", str(tmp_path), "--models", str(tmp_path / "models")]) == 1
    assert f"{tmp_path} is no bundle" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "tiny", "--models", "s3://bucket/models"])
    assert "s3://bucket/models is no directory" in capsys.readouterr().err


def test_publishers_at_once_get_versions_of_their_own(store_url: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        places = [
            *pool.map(lambda _: publish_tiny(open_destination(store_url), tmp_path), range(8))
        ]
    assert len({*places}) == 8
    store = BundleStore(store_url)
    index = BundleIndex.model_validate_json(store.read(INDEX))
    assert {*store.find().bundles} == {*index.digests}
    assert {f"{store_url}/{name}/{version}" for name, version in index.digests} == {*places}


def test_a_version_that_encodes_otherwise_is_noticed_in_a_store(
    store_url: str, tmp_path: Path
) -> None:
    destination = open_destination(store_url)
    assert destination.find_newest("tiny") is None
    publish_tiny(destination, tmp_path)
    first = destination.find_newest("tiny")
    publish_tiny(destination, tmp_path, change=b"other")
    second = destination.find_newest("tiny")
    assert first is not None
    assert second is not None
    assert first.encoder != second.encoder


def test_a_directory_has_an_index_for_web_servers(tmp_path: Path) -> None:
    models = ModelsDirectory(tmp_path / "models")
    models.check()
    with ThreadPoolExecutor(4) as pool:
        assert len({*pool.map(lambda _: publish_tiny(models, tmp_path), range(4))}) == 4
    index = BundleIndex.model_validate_json((models.directory / INDEX).read_bytes())
    assert index.digests == read_digests(models.directory)
    assert sorted(path.name for path in models.directory.iterdir()) == [INDEX, "tiny"]


def test_other_folders_are_not_in_the_index(tmp_path: Path) -> None:
    models = ModelsDirectory(tmp_path / "models")
    other = models.directory / "Backup" / "1"
    other.mkdir(parents=True)
    (other / MANIFEST).write_text("{}")
    publish_tiny(models, tmp_path)
    index = BundleIndex.model_validate_json((models.directory / INDEX).read_bytes())
    assert {*index.digests} == {("tiny", 1)}


def test_an_index_that_cannot_be_written_is_named_with_what_is_published(tmp_path: Path) -> None:
    models = ModelsDirectory(tmp_path / "models")
    (models.directory / INDEX).mkdir(parents=True)
    with pytest.raises(OSError, match=r"tiny/1 is published, but not in index.json"):
        publish_tiny(models, tmp_path)
    assert sorted(path.name for path in models.directory.iterdir()) == [INDEX, "tiny"]


def test_nothing_is_published_to_a_web_server() -> None:
    with pytest.raises(InvalidParameter, match="is a web server, which is only read"):
        open_destination("https://example.com/models")
