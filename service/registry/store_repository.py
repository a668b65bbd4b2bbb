"""Repository of bundles in a store, which are fetched to a local cache by their digests."""

import logging
import shutil
import tempfile
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from bundle.errors import BundleError, BundleUnavailable
from bundle.index import Key, name_object
from bundle.manifest import MANIFEST, PIN, ModelManifest, hash_bytes
from bundle.stores import BundleStore, FoundBundle, Listing
from service.registry.repository import (
    BundleLocation,
    check_name,
    parse_manifest,
    parse_pin,
    read_bundle,
    validate_manifest,
)

logger = logging.getLogger(__name__)

FETCHING = ".fetching-"  # begins the names of directories of incomplete bundles
READERS = 16  # of manifests at once
FETCHING_SECONDS = 6 * 3600  # after which nobody fetches a bundle any more


class StoreRepository:
    """Bundles of a store. A bundle is in `cache/DIGEST`, with the digest of its manifest.

    Several threads may read manifests and fetch bundles, and one at a time may call the rest.
    Processes may share the cache.
    """

    poll_seconds = 10.0

    def __init__(self, store: BundleStore, cache: Path) -> None:
        self._store, self._cache = store, cache
        self._listing = Listing()
        self._digests: dict[Key, tuple[Hashable, str]] = {}  # with the signatures they are of
        self._gone: set[str] = set()  # since the last look; until the next, they may be opened
        self._pins: dict[str, tuple[str, int]] = {}  # with the tags they are of

    def locations(self) -> list[BundleLocation]:
        """List the store, and read new manifests. Removes bundles that were gone before."""
        listing = self._store.find()
        with ThreadPoolExecutor(READERS) as readers:
            found = readers.map(self._find_digest, listing.bundles, listing.bundles.values())
        named = zip(listing.bundles, found, strict=True)
        digests = {key: digest for key, digest in named if digest is not None}
        gone = self._gone - {*digests.values()}
        self._gone = {digest for _, digest in self._digests.values()} - {*digests.values()}
        self._listing = listing
        self._digests = {key: (listing.bundles[key].signature, digests[key]) for key in digests}
        for digest in gone:
            shutil.rmtree(self._cache / digest, ignore_errors=True)
        return [
            BundleLocation(self._cache / digest, *key) for key, digest in sorted(digests.items())
        ]

    def sign(self, location: BundleLocation) -> Hashable:
        """Return the tags of the objects, or the digest in the index."""
        return self._listing.bundles[location.name, location.version].signature

    def read_manifest(self, location: BundleLocation) -> tuple[ModelManifest, str]:
        """Read a manifest of the cache, or of the store."""
        if location.directory.is_dir():
            with suppress(BundleError):
                return check_name(location, *parse_manifest(location.directory / MANIFEST))
        with _hide_store(str(location)):
            text = self._store.read(name_object((location.name, location.version), MANIFEST))
        found = check_name(location, *validate_manifest(text))
        return _check_listed(location, *found)

    def fetch(self, location: BundleLocation) -> tuple[ModelManifest, str]:
        """Read a bundle of the cache; fetch it if it is not there, or damaged."""
        if location.directory.is_dir():
            try:
                return read_bundle(location)
            except BundleError:
                shutil.rmtree(location.directory, ignore_errors=True)
        with _hide_store(str(location)):
            return self._fetch(location)

    def read_pin(self, model: str) -> int | None:
        """Read the version in the object `default` of a model; None without it."""
        tag = self._listing.pins.get(model)
        if tag is None:
            return None
        if self._pins.get(model, ("", 0))[0] != tag:
            with _hide_store(f"{model}/{PIN}"):
                self._pins[model] = tag, parse_pin(self._store.read(f"{model}/{PIN}"))
        return self._pins[model][1]

    def _find_digest(self, key: Key, found: FoundBundle) -> str | None:
        """Return the digest of a manifest, or the former one, if any, if it cannot be read."""
        if found.sha256 is not None:
            return found.sha256
        signature, digest = self._digests.get(key, (None, None))
        if signature == found.signature:
            return digest
        try:
            return hash_bytes(self._store.read(name_object(key, MANIFEST)))
        except BundleUnavailable as error:
            logger.error("%s version %d cannot be read: %s", *key, error)
            return digest

    def _fetch(self, location: BundleLocation) -> tuple[ModelManifest, str]:
        """Fetch and verify a bundle, and move it to its directory when it is complete.

        Returns its manifest and the digest of the manifest.
        """
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            self._remove_incomplete()
            with tempfile.TemporaryDirectory(
                prefix=FETCHING, dir=self._cache, ignore_cleanup_errors=True
            ) as directory:
                fetched = self._download(location, Path(directory))
                Path(directory).rename(location.directory)
                return fetched
        except OSError as error:
            if location.directory.is_dir():  # another process was first
                return read_bundle(location)
            raise BundleUnavailable(
                f"the cache {self._cache} cannot be written: {error.strerror}; set AE_MODEL_CACHE"
            ) from None

    def _remove_incomplete(self) -> None:
        """Remove what processes left that were killed while they fetched."""
        for path in self._cache.glob(f"{FETCHING}*"):
            if time.time() - path.stat().st_mtime > FETCHING_SECONDS:
                shutil.rmtree(path, ignore_errors=True)

    def _download(self, location: BundleLocation, directory: Path) -> tuple[ModelManifest, str]:
        key = location.name, location.version
        self._write(key, MANIFEST, directory)
        manifest, _ = _check_listed(location, *parse_manifest(directory / MANIFEST))
        for file in manifest.files:
            self._write(key, file, directory)
        return read_bundle(BundleLocation(directory, *key))

    def _write(self, key: Key, file: str, directory: Path) -> None:
        with (directory / file).open("wb") as target:
            for chunk in self._store.stream(name_object(key, file)):
                target.write(chunk)


def _check_listed(
    location: BundleLocation, manifest: ModelManifest, digest: str
) -> tuple[ModelManifest, str]:
    """Return the manifest and its digest. Raises BundleUnavailable if it is not the listed one."""
    if digest != location.directory.name:
        raise BundleUnavailable(f"{MANIFEST} changed since it was listed")
    return manifest, digest


@contextmanager
def _hide_store(subject: str) -> Iterator[None]:
    """Log why a store is unavailable, because clients see the error, and not where it is."""
    try:
        yield
    except BundleUnavailable as error:
        logger.error("%s: %s", subject, error)
        raise BundleUnavailable("it cannot be fetched from the store; the log says why") from error
