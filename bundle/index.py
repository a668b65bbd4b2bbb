"""Index of published bundles, for web servers, which cannot list files."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import PositiveInt

from bundle.manifest import MANIFEST, NAME_PATTERN, ModelName, Record, Sha256, compute_sha256

INDEX = "index.json"
BUNDLE_PATTERN = f"({NAME_PATTERN})/([1-9][0-9]{{0,17}})"  # of its directory
_BUNDLE = re.compile(BUNDLE_PATTERN)
Key = tuple[str, int]  # name and version of a bundle


def name_object(key: Key, file: str) -> str:
    """Return the name of a file of a bundle, below the models."""
    return f"{key[0]}/{key[1]}/{file}"


class IndexEntry(Record):
    """A bundle, and the SHA-256 of its manifest."""

    name: ModelName
    version: PositiveInt
    sha256: Sha256


class BundleIndex(Record):
    """All bundles, sorted by name and version."""

    bundles: tuple[IndexEntry, ...]

    @property
    def digests(self) -> dict[Key, str]:
        """The SHA-256 of each manifest."""
        return {(each.name, each.version): each.sha256 for each in self.bundles}


def render_index(digests: Mapping[Key, str]) -> bytes:
    """Return the file of an index."""
    entries = tuple(
        IndexEntry(name=name, version=version, sha256=digest)
        for (name, version), digest in sorted(digests.items())
    )
    return BundleIndex(bundles=entries).model_dump_json(indent=1).encode() + b"\n"


def read_digests(models: Path) -> dict[Key, str]:
    """Return the SHA-256 of the manifest of each bundle in a directory."""
    digests = {}
    for path in models.glob(f"[!.]*/[!.]*/{MANIFEST}"):
        if match := _BUNDLE.fullmatch(path.parent.relative_to(models).as_posix()):
            digests[match[1], int(match[2])] = compute_sha256(path)
    return digests
