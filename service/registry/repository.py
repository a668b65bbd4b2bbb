"""Repository of bundles: finds bundles, and checks their files against their manifests."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from bundle.errors import BundleError, BundleUnavailable
from bundle.manifest import MANIFEST, PIN, ModelManifest, compute_sha256, hash_bytes


@dataclass(frozen=True)
class BundleLocation:
    """A bundle's directory `<models>/<name>/<version>/`, not read yet."""

    directory: Path
    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


class Repository(Protocol):
    """Bundles that exist; `poll_seconds` is the time between two looks at them.

    Each method raises BundleError if what it reads is damaged, unreadable or unavailable.
    """

    poll_seconds: float

    def locations(self) -> list[BundleLocation]:
        """Return all bundles, sorted by name and version."""

    def sign(self, location: BundleLocation) -> Hashable:
        """Return what changes with the files of a bundle."""

    def read_manifest(self, location: BundleLocation) -> tuple[ModelManifest, str]:
        """Read a manifest and its SHA-256."""

    def fetch(self, location: BundleLocation) -> tuple[ModelManifest, str]:
        """Read a manifest and its SHA-256, and check every file; all are in the directory then."""

    def read_pin(self, model: str) -> int | None:
        """Return the version that answers without one; None if the newest does."""


class ModelRepository:
    """Bundles below a directory, or the one bundle that the directory is.

    Hidden directories, and names that are no version number, are skipped.
    """

    poll_seconds = 2.0

    def __init__(self, models: Path) -> None:
        self._models = models

    def locations(self) -> list[BundleLocation]:
        """Return all bundles, sorted by name and version.

        Raises BundleError if the directory is unreadable.
        """
        try:
            models = sorted(self._models.iterdir())
        except OSError as error:
            raise BundleError(
                f"the models directory {self._models} cannot be read: {error.strerror}"
            ) from error
        if self._models / MANIFEST in models:
            return [_locate(self._models)]
        found = [
            location
            for model in models
            if not model.name.startswith(".")
            for location in _find_versions(model)
        ]
        return sorted(found, key=lambda location: (location.name, location.version))

    def read(self, location: BundleLocation) -> ModelManifest:
        """Read a bundle's manifest, and check every file against it. Raises BundleError."""
        return self.fetch(location)[0]

    def read_manifest(self, location: BundleLocation) -> tuple[ModelManifest, str]:
        """Read a manifest and its SHA-256, without other files. Raises BundleError."""
        return check_name(location, *parse_manifest(location.directory / MANIFEST))

    def fetch(self, location: BundleLocation) -> tuple[ModelManifest, str]:
        """Read a manifest and its SHA-256, and check every file.

        Raises BundleError, and BundleUnavailable if the directory is gone.
        """
        if not location.directory.is_dir():
            raise BundleUnavailable("its directory is unavailable; mount it again")
        return read_bundle(location)

    def sign(self, location: BundleLocation) -> Hashable:
        """Return name, size and time of change of each file; empty if they are unreadable."""
        try:
            files = [(path.name, path.stat()) for path in sorted(location.directory.iterdir())]
        except OSError:
            return ()
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)

    def read_pin(self, model: str) -> int | None:
        """Read the version in the file `default` of a model's directory; None without the file.

        Raises BundleError if it holds no version.
        """
        path = self._models / model / PIN
        try:
            return parse_pin(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BundleError(f"{PIN} cannot be read: {error.strerror}") from error


def parse_pin(content: bytes) -> int:
    """Return the version in the content of a file `default`. Raises BundleError."""
    text = content[:20].decode("ascii", "replace").strip()
    if not text.isdecimal():
        raise BundleError(f"{PIN} holds {text!r}; write the number of a version")
    return int(text)


def read_bundle(location: BundleLocation) -> tuple[ModelManifest, str]:
    """Read a manifest and its SHA-256, and check every file against it. Raises BundleError."""
    found = check_name(location, *parse_manifest(location.directory / MANIFEST))
    for name, expected in found[0].files.items():
        _check(location.directory / name, expected)
    return found


def check_name(
    location: BundleLocation, manifest: ModelManifest, digest: str
) -> tuple[ModelManifest, str]:
    """Return the manifest and its digest. Raises BundleError if it is of another bundle."""
    if (manifest.name, manifest.version) != (location.name, location.version):
        raise BundleError(f"{MANIFEST} is of {manifest.name} version {manifest.version}")
    return manifest, digest


def _check(path: Path, digest: str) -> None:
    try:
        found = compute_sha256(path)
    except FileNotFoundError:
        raise BundleError(f"{path.name} cannot be read: there is no such file") from None
    except OSError as error:
        raise BundleUnavailable(f"{path.name} cannot be read: {error.strerror}") from error
    if found != digest:
        raise BundleError(
            f"{path.name} is damaged: its SHA-256 is {found[:12]}..., not {digest[:12]}..."
        )


def _locate(bundle: Path) -> BundleLocation:
    """Return the location of a bundle by its manifest. Raises BundleError."""
    manifest = parse_manifest(bundle / MANIFEST)[0]
    return BundleLocation(bundle, manifest.name, manifest.version)


def parse_manifest(path: Path) -> tuple[ModelManifest, str]:
    """Read a manifest, without its files, and its SHA-256. Raises BundleError."""
    try:
        return validate_manifest(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"there is no {MANIFEST}: the bundle is incomplete") from None
    except OSError as error:
        raise BundleUnavailable(f"{MANIFEST} cannot be read: {error.strerror}") from error


def validate_manifest(text: bytes) -> tuple[ModelManifest, str]:
    """Return the manifest in a JSON document, and its SHA-256. Raises BundleError."""
    try:
        return ModelManifest.model_validate_json(text), hash_bytes(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise BundleError(f"{MANIFEST} is not a manifest: {where}: {first['msg']}") from error


def _find_versions(model: Path) -> list[BundleLocation]:
    try:
        return [
            BundleLocation(path, model.name, int(path.name))
            for path in model.iterdir()
            if path.name.isdecimal() and path.name == str(int(path.name)) and path.is_dir()
        ]
    except NotADirectoryError:
        return []
    except OSError:  # an unreadable directory, of which reading the first version reports why
        return [BundleLocation(model / "1", model.name, 1)]
