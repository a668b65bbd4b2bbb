"""Copies of images, which must not lie in two splits, and which spoil a calibration within one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.errors import DataError
from training.progress import Log

Identified = Sequence[tuple[str, Path]]  # digests of the images in files: copies have the same


def check_apart(splits: Mapping[str, Identified]) -> None:
    """Raise DataError that names two files where an image lies in two splits."""
    seen: dict[str, tuple[str, Path]] = {}
    for split, files in splits.items():
        for digest, path in files:
            other, twin = seen.setdefault(digest, (split, path))
            if other != split:
                raise DataError(
                    f"{path} ({split}) is a copy of {twin} ({other}): remove one of them"
                )


def drop(files: Identified, log: Log) -> list[int]:
    """Indices of the files without later copies, which are counted in a warning."""
    first: dict[str, int] = {}
    for index, (digest, _) in enumerate(files):
        first.setdefault(digest, index)
    kept = sorted(first.values())
    if count := len(files) - len(kept):
        late = min({*range(len(files))} - {*kept})
        path, original = files[late][1], files[first[files[late][0]]][1]
        log(
            f"warning: {count} of {len(files)} files are copies of others, as {path} of {original}: they are left out"
        )
    return kept
