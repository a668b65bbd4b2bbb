"""Stores of bundles: object stores, and web servers that have an index. Needs obstore.

Objects are named as the files in a models directory, `NAME/VERSION/FILE`. A version exists if its
manifest does, which is written last.
"""

import random
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, from_url
from pydantic import ValidationError

from bundle.errors import BundleError, BundleUnavailable, InvalidParameter
from bundle.index import BUNDLE_PATTERN, INDEX, BundleIndex, Key, name_object, render_index
from bundle.manifest import MANIFEST, NAME_PATTERN, PIN, hash_bytes

WEB_SCHEMES = ("http", "https")
SCHEMES = ("s3", "gs", "az", "file", *WEB_SCHEMES)
# HTTP without TLS is only used where a URL or variable of the operator says so.
CLIENT: Any = {
    "connect_timeout": "10s",
    "read_timeout": "30s",  # without a byte
    "timeout": "1h",  # of a whole file
    "allow_http": True,
}
RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
CHUNK_BYTES = 2**20
INDEX_ATTEMPTS, INDEX_SECONDS = 20, 0.5  # of several publishers, and the longest wait between them
_OBJECT = re.compile(f"{BUNDLE_PATTERN}/(.+)")
_PIN = re.compile(f"({NAME_PATTERN})/{PIN}")


class FoundBundle(NamedTuple):
    """Signature of the objects of a bundle, and the digest of its manifest if known."""

    signature: tuple[Any, ...]
    sha256: str | None = None


@dataclass
class Listing:
    """The bundles of a store, the tags of its pins by model, and versions without a manifest."""

    bundles: dict[Key, FoundBundle] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    incomplete: set[Key] = field(default_factory=set)


class BundleStore:
    """A store at a URL. All methods raise BundleUnavailable if it fails or refuses."""

    def __init__(self, url: str, create: bool = False) -> None:
        """Open the store; its own variables hold its settings, such as AWS_ENDPOINT_URL.

        With `create`, a directory of a file:// URL may be missing. Raises InvalidParameter for a
        URL that is no store.
        """
        self.url = url.rstrip("/")
        self._scheme = _check_url(url)
        self._store = open_store(url, create)

    @property
    def can_publish(self) -> bool:
        """True but for a web server, which is only read."""
        return self._scheme not in WEB_SCHEMES

    def find(self) -> Listing:
        """Find all bundles; those of a web server by its index. Raises BundleError, too."""
        if self.can_publish:
            return self._list()
        digests = _parse_index(self.read(INDEX), f"{self.url}/{INDEX}")
        return Listing({key: FoundBundle((digest,), digest) for key, digest in digests.items()})

    def read(self, path: str) -> bytes:
        """Read an object."""
        with self._translate(path):
            return bytes(obstore.get(self._store, path).bytes())

    def stream(self, path: str) -> Iterator[bytes]:
        """Read an object in parts."""
        with self._translate(path):
            for chunk in obstore.get(self._store, path).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def create(self, path: str, content: bytes) -> bool:
        """Write an object that does not exist yet. Returns False if it exists with other content.

        It may exist with the same: a write whose response is lost is repeated.
        """
        try:
            with self._translate(path):
                obstore.put(self._store, path, content, mode="create")
        except exceptions.AlreadyExistsError:
            return self.read(path) == content
        return True

    def check_writing(self) -> None:
        """Fail if objects cannot be written, or not on condition that they do not exist."""
        path = f".check-{uuid.uuid4().hex}"
        if not self.create(path, b"first") or self.create(path, b"second"):
            raise BundleUnavailable(f"{self.url} does not support conditional writes")
        with suppress(BundleUnavailable), self._translate(path):  # who writes may not delete
            obstore.delete(self._store, path)

    def update_index(self) -> None:
        """Write the index of all bundles; if others write it meanwhile, read them again."""
        for _ in range(INDEX_ATTEMPTS):
            if self._try_update_index():
                return
            time.sleep(random.uniform(0, INDEX_SECONDS))
        raise BundleUnavailable(f"{self.url}/{INDEX} changes all the time; publish again later")

    def _try_update_index(self) -> bool:
        """Return False if the index, or the bundles, have changed since they were read."""
        tag, found = self._read_index_tag(), self._hash_manifests()
        try:
            with self._translate(INDEX):
                self._put_index(render_index(found), tag)
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            return False
        # A directory has no conditional update.
        return not isinstance(self._store, LocalStore) or found == self._hash_manifests()

    def _hash_manifests(self) -> dict[Key, str]:
        bundles = self.find().bundles
        return {key: hash_bytes(self.read(name_object(key, MANIFEST))) for key in bundles}

    def _read_index_tag(self) -> Any:
        """Return the tag of the index; None if there is no index."""
        try:
            with self._translate(INDEX):
                meta = obstore.head(self._store, INDEX)
        except _Missing:
            return None
        tags = {"e_tag": meta["e_tag"], "version": meta["version"]}
        return {name: value for name, value in tags.items() if value is not None}

    def _put_index(self, content: bytes, tag: Any) -> None:
        if tag is None:
            obstore.put(self._store, INDEX, content, mode="create")
        elif isinstance(self._store, LocalStore):
            obstore.put(self._store, INDEX, content, mode="overwrite")
        else:
            obstore.put(self._store, INDEX, content, mode=tag)

    def _list(self) -> Listing:
        objects: dict[Key, list[tuple[Any, ...]]] = defaultdict(list)
        listing = Listing()
        with self._translate(""):
            if isinstance(self._store, LocalStore):
                Path(str(self._store.prefix)).stat()  # because a missing directory would be empty
            for batch in obstore.list(self._store):
                for meta in batch:
                    path, tag = meta["path"], meta["e_tag"] or str(meta["last_modified"])
                    if match := _OBJECT.fullmatch(path):
                        key = match[1], int(match[2])
                        objects[key].append((match[3], meta["size"], tag))
                    elif match := _PIN.fullmatch(path):
                        listing.pins[match[1]] = tag
        for key, files in objects.items():
            if any(name == MANIFEST for name, *_ in files):
                listing.bundles[key] = FoundBundle(tuple(sorted(files)))
            else:
                listing.incomplete.add(key)
        return listing

    @contextmanager
    def _translate(self, path: str) -> Iterator[None]:
        """Turn errors of the store into BundleUnavailable; those of conditions pass."""
        try:
            yield
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise
        except (exceptions.NotFoundError, FileNotFoundError):
            raise _Missing(f"{self.url}/{path} does not exist") from None
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise BundleUnavailable(f"{self.url}/{path}: {summarise(error)}") from None


class _Missing(BundleUnavailable):
    """An object does not exist."""


def _check_url(url: str) -> str:
    """Return the scheme of a URL, which is shown in messages. Raises InvalidParameter."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise InvalidParameter(
            f"{url} is no store; its URL begins with {', '.join(SCHEMES)} and ://"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidParameter(
            f"the URL of the store at {parts.hostname} holds a key or a query; variables such as "
            "AWS_SECRET_ACCESS_KEY hold keys"
        )
    return parts.scheme


def open_store(url: str, create: bool = False) -> ObjectStore:
    """Open the store at a URL. Raises InvalidParameter for a URL that is no store."""
    scheme = _check_url(url)
    try:
        if scheme == "file":
            return from_url(url, mkdir=create)
        return from_url(url, client_options=CLIENT, retry_config=RETRIES)
    except (exceptions.BaseError, ValueError, OSError) as error:
        raise InvalidParameter(f"{url} cannot be opened: {summarise(error)}") from None


def _parse_index(content: bytes, name: str) -> dict[Key, str]:
    try:
        return BundleIndex.model_validate_json(content).digests
    except ValidationError as error:
        raise BundleError(f"{name} is no index of bundles: {error.errors()[0]['msg']}") from None


def summarise(error: Exception) -> str:
    """Return the first paragraph of an error; the others are for its developers."""
    text = str(error).partition("\n\n")[0][:500]
    if "169.254.169.254" in text:  # where machines of a cloud ask for their keys
        text += "; set the keys and region of the store, such as AWS_ACCESS_KEY_ID and AWS_REGION"
    return text
