from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.errors import BundleError
from bundle.manifest import MANIFEST
from service.registry.repository import BundleLocation, ModelRepository
from tests.bundles import load_registry, rewrite_manifest, write_bundle


def only(models: Path) -> BundleLocation:
    (location,) = ModelRepository(models).locations()
    return location


def test_bundles_are_listed_by_name_and_by_number(tmp_path: Path) -> None:
    for name, version in (("b", 1), ("a", 10), ("a", 9)):
        (tmp_path / name / str(version)).mkdir(parents=True)
    assert [str(location) for location in ModelRepository(tmp_path).locations()] == [
        "a version 9",
        "a version 10",
        "b version 1",
    ]


def test_hidden_folders_and_folders_without_a_version_are_skipped(tmp_path: Path) -> None:
    for path in ("a/.publishing-x", "a/notes", ".git/1", "a/1"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "README.md").touch()
    assert str(only(tmp_path)) == "a version 1"


def test_a_missing_models_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere cannot be read: No such file"):
        ModelRepository(tmp_path / "nowhere").locations()


def test_a_complete_bundle_is_read(tmp_path: Path) -> None:
    write_bundle(tmp_path, "tiny", 3)
    manifest = ModelRepository(tmp_path).read(only(tmp_path))
    assert (manifest.name, manifest.version) == ("tiny", 3)


def test_a_bundle_without_manifest_is_incomplete(tmp_path: Path) -> None:
    (write_bundle(tmp_path) / MANIFEST).unlink()
    with pytest.raises(BundleError, match="the bundle is incomplete"):
        ModelRepository(tmp_path).read(only(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}'])
def test_an_invalid_manifest_is_reported(tmp_path: Path, text: str) -> None:
    (write_bundle(tmp_path) / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="is not a manifest"):
        ModelRepository(tmp_path).read(only(tmp_path))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_bundle(tmp_path) / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"encoder\.onnx is damaged"):
        ModelRepository(tmp_path).read(only(tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (write_bundle(tmp_path) / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read"):
        ModelRepository(tmp_path).read(only(tmp_path))


def test_a_bundle_at_another_location_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    rewrite_manifest(write_bundle(tmp_path, "tiny", 1), version=2)
    with pytest.raises(BundleError, match="is of tiny version 2"):
        ModelRepository(tmp_path).read(only(tmp_path))


def test_an_unreadable_directory_is_reported(
    tmp_path: Path,
) -> None:
    write_bundle(tmp_path, "secret")

    class Unreadable(type(tmp_path)):  # type: ignore[misc]
        def iterdir(self) -> Iterator[Path]:
            if self.name == "secret":
                raise PermissionError(13, "Permission denied")
            return (type(self)(each) for each in Path(self).iterdir())

        def read_bytes(self) -> bytes:
            raise PermissionError(13, "Permission denied")

    repository = ModelRepository(Unreadable(tmp_path))
    (location,) = repository.locations()
    assert str(location) == "secret version 1"
    with pytest.raises(BundleError, match=r"manifest.json cannot be read: Permission denied"):
        repository.read(location)


def test_a_directory_may_be_one_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, "tiny", 3)
    repository = ModelRepository(bundle)
    (location,) = repository.locations()
    assert (str(location), location.directory) == ("tiny version 3", bundle)
    assert repository.read(location).name == "tiny"
    assert load_registry(bundle).versions("tiny") == [3]


def test_a_directory_with_an_invalid_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(BundleError, match="is not a manifest"):
        ModelRepository(tmp_path).locations()
