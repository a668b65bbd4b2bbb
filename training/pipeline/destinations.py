"""Destinations of bundles: a directory of models, or a store."""

import errno
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bundle import terminal
from bundle.errors import BundleUnavailable, InvalidParameter
from bundle.index import INDEX, Key, name_object, read_digests, render_index
from bundle.manifest import MANIFEST, ModelManifest
from training.export.published import list_versions

if TYPE_CHECKING:  # because it is an extra
    from bundle.stores import BundleStore


CLAIM = "claim"  # object whose content is of one publication only


class Destination(Protocol):
    """Models among which bundles are published.

    The methods raise OSError, or BundleUnavailable if the store is.
    """

    def check(self) -> None:
        """Fail if nothing can be published."""

    def open_staging(self, name: str) -> AbstractContextManager[Path]:
        """Open a directory for the files of a bundle; it is removed unless `add` takes it."""

    def find_versions(self, name: str) -> list[int]:
        """Return the versions of a model that are taken."""

    def find_newest(self, name: str) -> ModelManifest | None:
        """Return the manifest of the newest version of a model."""

    def add(self, staging: Path, name: str, version: int) -> str | None:
        """Publish the files as a version. Returns its location, or None if the version is taken."""


class ModelsDirectory:
    """A directory of models. A bundle is written to a hidden directory, which is then renamed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def check(self) -> None:
        """Make the directory."""
        self.directory.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def open_staging(self, name: str) -> Iterator[Path]:
        """Open a hidden directory beside the versions."""
        home = self.directory / name
        home.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".publishing-", dir=home))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):
                home.rmdir()  # if nothing was published

    def find_versions(self, name: str) -> list[int]:
        """List the directories of versions."""
        return list_versions(self.directory / name)

    def find_newest(self, name: str) -> ModelManifest | None:
        """Read the manifest of the newest version."""
        newest = max(self.find_versions(name), default=None)
        if newest is None:
            return None
        manifest = self.directory / name / str(newest) / MANIFEST
        return ModelManifest.model_validate_json(manifest.read_bytes())

    def add(self, staging: Path, name: str, version: int) -> str | None:
        """Rename the directory, and write the index."""
        staging.chmod(0o755)
        target = self.directory / name / str(version)
        try:
            staging.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return None  # another run has just published this version
        try:
            self._write_index()
        except OSError as error:
            raise OSError(f"{target} is published, but not in {INDEX}: {error}") from error
        return str(target)

    def _write_index(self) -> None:
        """Write the index until it has all bundles, because others may publish meanwhile."""
        written: dict[Key, str] = {}
        while (found := read_digests(self.directory)) != written:
            with tempfile.TemporaryDirectory(dir=self.directory, prefix=".") as directory:
                complete = Path(directory) / INDEX
                complete.write_bytes(render_index(found))
                complete.replace(self.directory / INDEX)
            written = found


class ModelsStore:
    """A store of models. A version is taken by the object `claim`, and exists by its manifest.

    A publication that is interrupted leaves objects without a manifest, which nobody reads; its
    version stays taken.
    """

    def __init__(self, store: "BundleStore") -> None:
        self._store = store

    def check(self) -> None:
        """List the store, and write to it."""
        self._store.find()
        self._store.check_writing()

    @contextmanager
    def open_staging(self, name: str) -> Iterator[Path]:
        """Open a temporary directory, which is kept if only its publication fails."""
        staging = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        try:
            yield staging
        except BundleUnavailable as error:
            if not (staging / MANIFEST).exists():
                shutil.rmtree(staging)
                raise
            publish = f"{terminal.name_module('training')} publish {staging}"
            raise BundleUnavailable(
                f"{error}; the bundle is kept: {publish} --models {self._store.url}"
            ) from error
        except BaseException:
            shutil.rmtree(staging)
            raise
        shutil.rmtree(staging)

    def find_versions(self, name: str) -> list[int]:
        """List the versions, also those without a manifest."""
        listing = self._store.find()
        return [
            version for model, version in {*listing.bundles, *listing.incomplete} if model == name
        ]

    def find_newest(self, name: str) -> ModelManifest | None:
        """Read the manifest of the newest version that has one."""
        versions = [version for model, version in self._store.find().bundles if model == name]
        if not versions:
            return None
        content = self._store.read(name_object((name, max(versions)), MANIFEST))
        return ModelManifest.model_validate_json(content)

    def add(self, staging: Path, name: str, version: int) -> str | None:
        """Write the objects, none of which may exist, the manifest last, and the index."""
        key = name, version
        if not self._store.create(name_object(key, CLAIM), uuid.uuid4().hex.encode()):
            return None  # another run publishes this version
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        files.sort(key=lambda path: path == staging / MANIFEST)  # which is then the last
        for path in files:
            object_name = name_object(key, path.relative_to(staging).as_posix())
            if not self._store.create(object_name, path.read_bytes()):
                raise BundleUnavailable(f"{object_name} exists in {self._store.url}")
        location = f"{self._store.url}/{name}/{version}"
        try:
            self._store.update_index()
        except BundleUnavailable as error:
            raise OSError(f"{location} is published, but not in {INDEX}: {error}") from error
        return location


def open_destination(models: str) -> Destination:
    """Return the destination at a path or URL.

    Raises InvalidParameter for a URL where nothing can be published, or if obstore is missing.
    """
    if "://" not in models:
        return ModelsDirectory(Path(models))
    try:
        from bundle.stores import BundleStore
    except ModuleNotFoundError as error:
        raise InvalidParameter(f"{models} needs {error.name}: install the extra `stores`") from None
    store = BundleStore(models, create=True)
    if not store.can_publish:
        raise InvalidParameter(
            f"{models} is a web server, which is only read: publish to its directory or store"
        )
    return ModelsStore(store)
