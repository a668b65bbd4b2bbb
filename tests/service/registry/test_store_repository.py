"""Bundles of a store, from their publication to a loaded model."""

import asyncio
import os
import shutil
from pathlib import Path

import obstore
import pytest

from bundle.errors import BundleUnavailable
from bundle.manifest import MANIFEST, PIN
from bundle.stores import BundleStore
from service.registry.store_repository import StoreRepository
from tests.bundles import Rig
from tests.stores import S3, forwarding, open_store, publish_tiny, serving_files, store_url
from training.pipeline.destinations import ModelsDirectory, open_destination

__all__ = ["store_url"]


class Replica:
    """A service that keeps up with a store."""

    def __init__(self, url: str, cache: Path) -> None:
        rig = Rig(StoreRepository(BundleStore(url), cache))
        self.cache, self.registry, self.updates = cache, rig.registry, rig.updates
        self.updates.load_all()

    def look(self) -> None:
        asyncio.run(self.updates.look())

    @property
    def versions(self) -> list[int]:
        return self.registry.versions("tiny")

    @property
    def cached(self) -> set[str]:
        return {path.name for path in self.cache.iterdir()}


def test_published_versions_are_fetched_and_loaded(store_url: str, tmp_path: Path) -> None:
    destination = open_destination(store_url)
    assert publish_tiny(destination, tmp_path) == f"{store_url}/tiny/1"
    replica = Replica(store_url, tmp_path / "cache")
    assert replica.versions == [1]
    assert publish_tiny(destination, tmp_path) == f"{store_url}/tiny/2"
    replica.look()
    assert replica.versions == [1, 2]
    loaded = {model.digest for model in replica.registry.all()}
    assert replica.cached == loaded


def test_a_pinned_version_answers(store_url: str, tmp_path: Path) -> None:
    destination = open_destination(store_url)
    publish_tiny(destination, tmp_path)
    publish_tiny(destination, tmp_path)
    assert BundleStore(store_url).create(f"tiny/{PIN}", b"1\n")
    replica = Replica(store_url, tmp_path / "cache")
    assert replica.registry.get("tiny").manifest.version == 1


def test_what_is_cached_is_not_fetched_again_unless_it_is_damaged(tmp_path: Path) -> None:
    models, cache = tmp_path / "store", tmp_path / "cache"
    publish_tiny(open_destination(f"file://{models}"), tmp_path)
    Replica(f"file://{models}", cache)
    encoder = models / "tiny" / "1" / "encoder.onnx"
    content = encoder.read_bytes()
    encoder.unlink()
    assert Replica(f"file://{models}", cache).versions == [1]

    (cached,) = cache.glob("*/encoder.onnx")
    cached.write_bytes(b"damaged")
    assert Replica(f"file://{models}", cache).versions == []
    encoder.write_bytes(content)
    assert Replica(f"file://{models}", cache).versions == [1]


def test_an_object_of_another_digest_is_refused_until_it_is_replaced(
    store_url: str, tmp_path: Path
) -> None:
    destination = open_destination(store_url)
    publish_tiny(destination, tmp_path)
    publish_tiny(destination, tmp_path)
    encoder, store = "tiny/2/encoder.onnx", open_store(store_url)
    content = BundleStore(store_url).read(encoder)
    obstore.put(store, encoder, b"other")
    replica = Replica(store_url, tmp_path / "cache")
    assert replica.versions == [1]
    assert "encoder.onnx is damaged" in replica.registry.failures()["tiny/2"]
    assert len(replica.cached) == 1  # nothing of the damaged version
    obstore.put(store, encoder, content)
    replica.look()
    assert (replica.versions, replica.registry.failures()) == ([1, 2], {})


def test_a_version_that_goes_leaves_the_cache(tmp_path: Path) -> None:
    models = tmp_path / "store"
    destination = open_destination(f"file://{models}")
    publish_tiny(destination, tmp_path)
    publish_tiny(destination, tmp_path)
    replica = Replica(f"file://{models}", tmp_path / "cache")
    shutil.rmtree(models / "tiny" / "1")
    replica.look()
    assert (replica.versions, len(replica.cached)) == ([2], 2)  # until no request opens it
    replica.look()
    assert (replica.versions, len(replica.cached)) == ([2], 1)


def test_a_version_that_is_being_published_is_not_seen(store_url: str, tmp_path: Path) -> None:
    publish_tiny(open_destination(store_url), tmp_path)
    store = BundleStore(store_url)
    assert store.create("tiny/2/encoder.onnx", b"half")
    replica = Replica(store_url, tmp_path / "cache")
    assert (replica.versions, replica.registry.failures()) == ([1], {})
    assert publish_tiny(open_destination(store_url), tmp_path).endswith("/tiny/3")


def test_a_connection_that_is_cut_fails_one_bundle_until_the_next_look(tmp_path: Path) -> None:
    models, cut = ModelsDirectory(tmp_path / "web"), {"2/decoder.onnx"}
    models.check()
    publish_tiny(models, tmp_path)
    publish_tiny(models, tmp_path)
    with serving_files(models.directory, cut) as url:
        replica = Replica(url, tmp_path / "cache")
        assert replica.versions == [1]
        reason = replica.registry.failures()["tiny/2"]
        assert reason == "it cannot be fetched from the store; the log says why"
        assert len(replica.cached) == 1
        cut.clear()
        replica.look()
        assert (replica.versions, replica.registry.failures()) == ([1, 2], {})


@pytest.mark.skipif(not S3, reason="`make stores` runs a server of S3")
def test_a_connection_to_s3_that_is_cut_fails_one_bundle_until_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, cut = f"s3://models/{tmp_path.name}", {"/1/decoder.onnx"}
    publish_tiny(open_destination(url), tmp_path)
    with forwarding(os.environ["AWS_ENDPOINT_URL"], cut) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        replica = Replica(url, tmp_path / "cache")
        assert (replica.versions, {*replica.registry.failures()}) == ([], {"tiny/1"})
        cut.clear()
        replica.look()
        assert (replica.versions, replica.registry.failures()) == ([1], {})


def test_a_store_that_goes_away_leaves_the_loaded_models(tmp_path: Path) -> None:
    models = tmp_path / "store"
    publish_tiny(open_destination(f"file://{models}"), tmp_path)
    replica = Replica(f"file://{models}", tmp_path / "cache")
    models.rename(tmp_path / "gone")
    with pytest.raises(BundleUnavailable, match="does not exist"):
        replica.look()
    assert replica.versions == [1]
    web = ModelsDirectory(tmp_path / "gone")
    with serving_files(web.directory, set()) as url:
        replica = Replica(url, tmp_path / "cache")
    with pytest.raises(BundleUnavailable):
        replica.look()
    assert replica.versions == [1]


def test_a_cache_that_cannot_be_written_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models, cache = tmp_path / "store", tmp_path / "cache"
    publish_tiny(open_destination(f"file://{models}"), tmp_path)
    cache.write_text("no directory")
    replica = Replica(f"file://{models}", cache)
    assert replica.versions == []
    assert f"the cache {cache} cannot be written" in caplog.text
    assert str(cache) not in str(replica.registry.failures())  # which clients see
    cache.unlink()
    replica.look()
    assert (replica.versions, replica.registry.failures()) == ([1], {})


def test_a_manifest_that_cannot_be_read_fails_no_other(tmp_path: Path) -> None:
    models = tmp_path / "store"
    destination = open_destination(f"file://{models}")
    publish_tiny(destination, tmp_path)
    publish_tiny(destination, tmp_path)
    manifest = models / "tiny" / "1" / MANIFEST
    manifest.rename(manifest.with_name("moved"))
    manifest.symlink_to(tmp_path / "nowhere" / "else")
    assert Replica(f"file://{models}", tmp_path / "cache").versions == [2]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    models, cache = tmp_path / "store", tmp_path / "cache"
    publish_tiny(open_destination(f"file://{models}"), tmp_path)
    old, new = cache / ".fetching-old", cache / ".fetching-new"
    for left in (old, new):
        left.mkdir(parents=True)
    os.utime(old, (0, 0))
    Replica(f"file://{models}", cache)
    assert (old.exists(), new.exists()) == (False, True)
