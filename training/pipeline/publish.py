"""Writing a bundle, every file in a hidden directory first and then one rename; and reading it again."""

import errno
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bundle.manifest import MANIFEST, ModelManifest, sha256_of
from training.export.model_card import render
from training.export.published import CARD


@contextmanager
def staging(models: Path, name: str) -> Iterator[Path]:
    """A hidden directory to write a bundle to. `publish` makes it visible; else it is removed at the end."""
    home = models / name
    home.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=".publishing-", dir=home))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        with suppress(OSError):
            home.rmdir()  # where nothing was published


def publish(directory: Path, finish: Callable[[int], None]) -> Path:
    """Give a bundle the next free version number and its name, in one rename; `finish` writes what holds the number."""
    directory.chmod(0o755)
    while True:
        published = [int(path.name) for path in directory.parent.iterdir() if path.name.isdecimal()]
        version = max(published, default=0) + 1
        finish(version)
        try:
            return directory.rename(directory.parent / str(version))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else another run has just published this number


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file but the manifest, and but the report, which can be drawn again."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST)
    return {path.name: sha256_of(path) for path in files}


def write_manifest(manifest: ModelManifest, directory: Path) -> None:
    """Write the model render, which is made from the manifest, and the manifest with the digest of every other file."""
    (directory / CARD).write_text(render(manifest), encoding="utf-8")
    complete = manifest.model_copy(update={"files": digests(directory)})
    # What is usual is left out, for services of before there was a choice.
    usual = {"precision"} if complete.precision == "float32" else set()
    text = complete.model_dump_json(indent=1, exclude_none=True, exclude=usual)
    numbers_in_one_line = re.sub(r"\[(\s+[-+.\de]+,?)+\s+\]", lambda match: re.sub(r"\s+", "", match[0]), text)
    (directory / MANIFEST).write_text(numbers_in_one_line + "\n", encoding="utf-8")
