from pathlib import Path

import pytest

from bundle import stores
from bundle.errors import BundleError, BundleUnavailable, InvalidParameter
from bundle.index import INDEX, BundleIndex
from bundle.stores import BundleStore
from tests.stores import open_store, serving_files, store_url

__all__ = ["store_url"]
DIGEST = "0" * 64


def fill(url: str, *objects: str) -> BundleStore:
    store = BundleStore(url, create=True)
    for path in objects:
        assert store.create(path, path.encode())
    return store


def test_a_version_exists_if_its_manifest_does(store_url: str) -> None:
    store = fill(
        store_url,
        "tiny/1/encoder.onnx",
        "tiny/1/manifest.json",
        "tiny/1/report/index.html",
        "tiny/2/encoder.onnx",
        "tiny/default",
        "tiny/none/manifest.json",
        ".hidden/1/manifest.json",
        "README.md",
    )
    listing = store.find()
    assert {*listing.bundles} == {("tiny", 1)}
    assert listing.incomplete == {("tiny", 2)}
    assert {*listing.pins} == {"tiny"}
    assert listing == store.find()


def test_an_object_is_written_once(store_url: str) -> None:
    store = fill(store_url, "tiny/1/a")
    assert not store.create("tiny/1/a", b"other")
    assert store.read("tiny/1/a") == b"tiny/1/a"
    assert b"".join(store.stream("tiny/1/a")) == b"tiny/1/a"
    assert store.create("tiny/1/a", b"tiny/1/a")  # as a write that is repeated


def test_the_index_has_all_bundles_and_keeps_what_it_knows(store_url: str) -> None:
    store = fill(store_url, "tiny/1/manifest.json")
    store.update_index()
    assert store.create("tiny/2/manifest.json", b"")
    store.update_index()
    digests = BundleIndex.model_validate_json(store.read(INDEX)).digests
    assert {*digests} == {("tiny", 1), ("tiny", 2)}
    assert digests["tiny", 2].startswith("e3b0c442")  # of nothing


def test_a_missing_object_is_named(store_url: str) -> None:
    with pytest.raises(BundleUnavailable, match="/none does not exist"):
        fill(store_url).read("none")


def test_a_web_server_is_read_by_its_index(tmp_path: Path) -> None:
    with serving_files(tmp_path, set()) as url:
        store = BundleStore(url)
        assert not store.can_publish
        with pytest.raises(BundleUnavailable, match=r"index.json does not exist"):
            store.find()
        (tmp_path / INDEX).write_text("{}")
        with pytest.raises(BundleError, match=r"index.json is no index of bundles"):
            store.find()
        entry = f'{{"name": "tiny", "version": 1, "sha256": "{DIGEST}"}}'
        (tmp_path / INDEX).write_text(f'{{"bundles": [{entry}]}}')
        assert store.find().bundles["tiny", 1].sha256 == DIGEST


def test_a_store_is_checked_for_conditional_writes(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BundleStore(store_url, create=True)
    store.check_writing()
    assert not [*open_store(store_url).list().collect()]
    monkeypatch.setattr(BundleStore, "create", lambda *_: True)
    with pytest.raises(BundleUnavailable, match="does not support conditional writes"):
        store.check_writing()


def test_an_index_that_always_changes_ends(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "INDEX_SECONDS", 0.0)
    monkeypatch.setattr(BundleStore, "_try_update_index", lambda _: False)
    with pytest.raises(BundleUnavailable, match="changes all the time"):
        BundleStore(store_url, create=True).update_index()


@pytest.mark.parametrize(
    "url", ["https://user:secret@host/models", "https://host/models?key=secret"]
)
def test_a_url_with_a_key_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidParameter, match="holds a key or a query") as raised:
        BundleStore(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["ftp://host/models", "s3://", "file:///nowhere/models"])
def test_a_url_that_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match=url):
        BundleStore(url)
