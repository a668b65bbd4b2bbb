"""Publication of a bundle as the next version of its model."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bundle.manifest import MANIFEST, ModelManifest, compute_sha256
from training.errors import IncompatibleError
from training.export import model_card
from training.export.published import CARD, PublishedBundle
from training.pipeline.destinations import Destination


class Published(NamedTuple):
    """Directory or URL of a bundle, its model, and its metrics.

    `other_encoder` is the version before it, if that has another encoder: vectors of different
    encoders are not comparable.
    """

    location: str
    model: str
    version: int
    metrics: dict[str, float]
    other_encoder: int | None

    @property
    def directory(self) -> Path:
        """The directory of a bundle that is not in a store."""
        return Path(self.location)


def publish(
    models: Destination,
    staging: Path,
    draft: ModelManifest,
    draw: Callable[[PublishedBundle], object] | None = None,
    compatible: bool = False,
) -> Published:
    """Publish a bundle as the next version.

    `staging` holds all files but manifest, model card and report. `draft` is the manifest without
    version and digests. `draw` writes the report of the complete bundle. With `compatible`, raises
    IncompatibleError if the bundle has another encoder than the version before.
    """
    while True:
        version = max(models.find_versions(draft.name), default=0) + 1
        manifest = write_manifest(draft.model_copy(update={"version": version}), staging)
        other = _find_other_encoder(manifest, models.find_newest(draft.name))
        if compatible and other:
            raise IncompatibleError(
                f"{draft.name} would encode unlike version {other}, and vectors would mix: "
                "publish without --compatible, or under another --name"
            )
        if draw is not None:
            draw(PublishedBundle(staging))
        if location := models.add(staging, draft.name, version):
            return Published(location, draft.name, version, manifest.metrics, other)


def _find_other_encoder(manifest: ModelManifest, before: ModelManifest | None) -> int | None:
    if before is None or before.encoder == manifest.encoder:
        return None
    return before.version


def compute_digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file but manifest and report, because a report can be drawn again."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST)
    return {path.name: compute_sha256(path) for path in files}


def write_manifest(manifest: ModelManifest, directory: Path) -> ModelManifest:
    """Write the model card, and the manifest with the digests of all other files; returns it."""
    (directory / CARD).write_text(model_card.render(manifest), encoding="utf-8")
    complete = manifest.model_copy(update={"files": compute_digests(directory)})
    # Default values are left out, because older services do not know these entries.
    defaults = {"precision"} if complete.precision == "float32" else set()
    text = complete.model_dump_json(indent=1, exclude_none=True, exclude=defaults)
    numbers_in_one_line = re.sub(
        r"\[(\s+[-+.\de]+,?)+\s+\]", lambda match: re.sub(r"\s+", "", match[0]), text
    )
    (directory / MANIFEST).write_text(numbers_in_one_line + "\n", encoding="utf-8")
    return complete
