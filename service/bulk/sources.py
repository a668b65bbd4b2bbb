"""Where the images are: files, folders, patterns and lists, walked without keeping what was found."""

import codecs
import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bundle.errors import InvalidParameter

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def check(sources: Sequence[str]) -> None:
    """Raise InvalidParameter for the first source that names nothing."""
    for source in sources:
        if not os.path.lexists(source) and next(_matches(source), None) is None:
            what = "matches no image" if glob.has_magic(source) else "does not exist"
            raise InvalidParameter(f"{source} {what}")


def files(sources: Sequence[str], omit: Sequence[Path] = ()) -> Iterator[Path]:
    """The files that are named, those that match, and the images below folders, each folder in the order of its names.

    In folders hidden files are skipped, files without an image suffix, and all that is in the
    folders to `omit`. A folder that cannot be listed is given itself.
    """
    omitted = [folder.absolute() for folder in omit]
    for source in sources:
        if os.path.isdir(source):  # noqa: PTH112 - which, unlike pathlib's, raises nothing
            found = _below(source)
        elif os.path.lexists(source):
            yield Path(source)
            continue
        else:
            found = _matches(source)
        yield from (path for path in found if not _is_below(path.absolute(), omitted))


def listed(lines: Iterable[bytes]) -> Iterator[Path]:
    """The paths of a list, one a line."""
    for number, line in enumerate(lines):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        if text := text.rstrip(b"\r\n"):
            yield Path(os.fsdecode(text))


def size(path: Path) -> int:
    """Bytes of a regular file. Raises OSError or ValueError where there is none that can be read."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        with os.scandir(path):  # raises what kept the folder from being listed
            raise OSError("it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is not a regular file")
    return found.st_size


def label(path: str) -> str:
    """The path as text that every output can hold: what is not UTF-8 in it is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _matches(pattern: str) -> Iterator[Path]:
    for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - absolute patterns too
        if _is_image(match) and not os.path.isdir(match):  # noqa: PTH112
            yield Path(match)


def _below(folder: str) -> Iterator[Path]:
    unlisted: list[OSError] = []
    for directory, folders, names in os.walk(folder, onerror=unlisted.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(directory, name) for name in sorted(names) if _is_image(name))
        yield from _places(unlisted)
    yield from _places(unlisted)


def _places(errors: list[OSError]) -> Iterator[Path]:
    while errors:
        yield Path(errors.pop().filename)


def _is_image(path: str) -> bool:
    name = os.path.basename(path)  # noqa: PTH119
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
