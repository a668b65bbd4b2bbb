"""Publication of a bundle: files are written to a hidden directory, which is then renamed."""

import errno
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bundle.manifest import MANIFEST, ModelManifest, compute_sha256
from training.errors import IncompatibleError
from training.export import model_card
from training.export.published import CARD, PublishedBundle, list_versions


@contextmanager
def open_staging(models: Path, name: str) -> Iterator[Path]:
    """Open a hidden directory for a bundle; it is removed unless `publish` renames it."""
    home = models / name
    home.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=".publishing-", dir=home))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        with suppress(OSError):
            home.rmdir()  # if nothing was published


def publish(
    staging: Path,
    draft: ModelManifest,
    draw: Callable[[PublishedBundle], object] | None = None,
    compatible: bool = False,
) -> Path:
    """Publish a bundle as the next version, in one rename; returns its directory.

    `staging` holds all files but manifest, model card and report. `draft` is the manifest without
    version and digests. `draw` writes the report of the complete bundle. With `compatible`, raises
    IncompatibleError if the bundle has another encoder than the version before.
    """
    staging.chmod(0o755)
    while True:
        version = max(list_versions(staging.parent), default=0) + 1
        write_manifest(draft.model_copy(update={"version": version}), staging)
        if compatible and (other := find_other_encoder(staging, version)):
            raise IncompatibleError(
                f"{draft.name} would encode unlike version {other}, and vectors would mix: "
                "publish without --compatible, or under another --name"
            )
        if draw is not None:
            draw(PublishedBundle(staging))
        try:
            return staging.rename(staging.parent / str(version))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # otherwise another run has just published this version


def find_other_encoder(bundle: Path, version: int) -> int | None:
    """Return the version before `version` if its encoder is another; vectors are not comparable."""
    before = max((each for each in list_versions(bundle.parent) if each < version), default=None)
    if before is None:
        return None
    encoders = {_read_encoder(bundle), _read_encoder(bundle.parent / str(before))}
    return before if len(encoders) > 1 else None


def _read_encoder(bundle: Path) -> str | None:
    return ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes()).encoder


def compute_digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file but manifest and report, because a report can be drawn again."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST)
    return {path.name: compute_sha256(path) for path in files}


def write_manifest(manifest: ModelManifest, directory: Path) -> None:
    """Write the model card, and the manifest with the digests of all other files."""
    (directory / CARD).write_text(model_card.render(manifest), encoding="utf-8")
    complete = manifest.model_copy(update={"files": compute_digests(directory)})
    # Default values are left out, because older services do not know these entries.
    defaults = {"precision"} if complete.precision == "float32" else set()
    text = complete.model_dump_json(indent=1, exclude_none=True, exclude=defaults)
    numbers_in_one_line = re.sub(
        r"\[(\s+[-+.\de]+,?)+\s+\]", lambda match: re.sub(r"\s+", "", match[0]), text
    )
    (directory / MANIFEST).write_text(numbers_in_one_line + "\n", encoding="utf-8")
