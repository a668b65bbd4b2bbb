"""Where the images are: files, folders, patterns and lists, walked without keeping what was found."""

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from service.errors import InvalidParameter

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def check(sources: Sequence[str]) -> None:
    """Raise InvalidParameter for the first source that names nothing."""
    for source in sources:
        if not Path(source).exists() and next(_matches(source), None) is None:
            what = "matches no image" if glob.has_magic(source) else "does not exist"
            raise InvalidParameter(f"{source} {what}")


def files(sources: Sequence[str], listed: Iterable[str] = ()) -> Iterator[Path]:
    """The files that are named, those that match, and the images below folders, each folder in the order of its names.

    Hidden files and what has no suffix of an image are passed over in folders. `listed` are paths of files, one a line.
    """
    for source in sources:
        path = Path(source)
        if path.is_dir():
            yield from _below(path)
        elif path.exists():
            yield path
        else:
            yield from _matches(source)
    for line in listed:
        if text := line.rstrip("\r\n"):
            yield Path(text)


def size(path: Path) -> int:
    """Bytes of a regular file. Raises OSError where there is none that can be read."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is not a regular file")
    return found.st_size


def label(path: Path) -> str:
    """The path as text that every output can hold: what is not UTF-8 in it is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _matches(pattern: str) -> Iterator[Path]:
    for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - absolute patterns too
        path = Path(match)
        if path.is_dir() or not _is_image(path.name):
            continue
        yield path


def _below(folder: Path) -> Iterator[Path]:
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(directory, name) for name in sorted(names) if _is_image(name))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
