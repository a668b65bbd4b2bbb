"""Index of published bundles, for web servers, which cannot list files."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import PositiveInt

from bundle.manifest import MANIFEST, ModelName, Record, Sha256, compute_sha256

INDEX = "index.json"
Key = tuple[str, int]  # name and version of a bundle


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
    manifests = {
        (path.parts[-3], int(path.parts[-2])): path
        for path in models.glob(f"[!.]*/[1-9]*/{MANIFEST}")
        if path.parts[-2].isdecimal()
    }
    return {key: compute_sha256(path) for key, path in manifests.items()}
