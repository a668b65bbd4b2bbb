"""Copies of images: between splits they leak, and within a split they distort a calibration."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.errors import DataError
from training.progress import Log

HashedPaths = Sequence[tuple[str, Path]]  # digest of an image, and its file; copies share a digest


def check_disjoint(splits: Mapping[str, HashedPaths]) -> None:
    """Raise DataError, which names two files, if an image lies in two splits."""
    seen: dict[str, tuple[str, Path]] = {}
    for split, files in splits.items():
        for digest, path in files:
            other, twin = seen.setdefault(digest, (split, path))
            if other != split:
                raise DataError(
                    f"{path} ({split}) is a copy of {twin} ({other}): remove one of them"
                )


def find_originals(files: HashedPaths, log: Log) -> list[int]:
    """Indices of the files without later copies; a warning counts the copies."""
    first: dict[str, int] = {}
    for index, (digest, _) in enumerate(files):
        first.setdefault(digest, index)
    kept = sorted(first.values())
    if count := len(files) - len(kept):
        late = min({*range(len(files))} - {*kept})
        path, original = files[late][1], files[first[files[late][0]]][1]
        log(
            f"warning: {count} of {len(files)} files are copies of others, as {path} of {original}:"
            " skipped them"
        )
    return kept
