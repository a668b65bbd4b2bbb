"""Sources of images: files, folders, patterns, URLs and lists, walked in constant memory."""

import codecs
import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bundle.errors import InvalidParameter
from service.bulk import remote_files
from service.bulk.remote_files import RemoteFile

ImageFile = Path | RemoteFile
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def check(sources: Sequence[str]) -> None:
    """Raise InvalidParameter for the first source that names nothing."""
    for source in sources:
        if remote_files.is_url(source):
            if next(_list_remote(source), None) is None:
                raise InvalidParameter(f"{source} holds no image; name a folder of a store")
        elif not os.path.lexists(source) and next(_match(source), None) is None:
            problem = "matches no image" if glob.has_magic(source) else "does not exist"
            raise InvalidParameter(f"{source} {problem}")


def find_files(sources: Sequence[str], omit: Sequence[Path] = ()) -> Iterator[ImageFile]:
    """Find named files, files that match patterns, and images below folders, sorted by name.

    Images below a URL are in the order of its store.

    Hidden files, files without an image suffix and the folders to `omit` are skipped. A folder that
    cannot be listed is returned itself, so that it gets a row with the error.
    """
    omitted = [folder.absolute() for folder in omit]
    for source in sources:
        if remote_files.is_url(source):
            yield from _list_remote(source)
            continue
        if os.path.isdir(source):  # noqa: PTH112 - because pathlib's can raise
            found = _walk(source)
        elif os.path.lexists(source):
            yield Path(source)
            continue
        else:
            found = _match(source)
        yield from (path for path in found if not _is_below(path.absolute(), omitted))


def read_list(lines: Iterable[bytes]) -> Iterator[Path]:
    """Read the paths of a list, one per line. Raises InvalidParameter for a URL."""
    for number, line in enumerate(lines):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
        path = os.fsdecode(text.rstrip(b"\r\n"))
        if remote_files.is_url(path):
            raise InvalidParameter(
                f"line {number + 1} of the --list is the URL {escape(path)}; lists have paths of "
                "local files, so name the URL of its folder in the command"
            )
        if path:
            yield Path(path)


def measure(file: ImageFile) -> int:
    """Return the bytes of a regular file. Raises OSError or ValueError if it is unreadable."""
    if isinstance(file, RemoteFile):
        return file.size
    found = file.stat()
    if stat.S_ISDIR(found.st_mode):
        with os.scandir(file):  # raises the error of an unreadable folder
            raise OSError("it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is not a regular file")
    return found.st_size


def escape(path: str) -> str:
    """Return the path as text for any output; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _list_remote(url: str) -> Iterator[RemoteFile]:
    for file in remote_files.list_files(url):
        names = file.url.removeprefix(url).split("/")
        if _is_image(file.url) and not any(name.startswith(".") for name in names):
            yield file


def _match(pattern: str) -> Iterator[Path]:
    for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - absolute patterns too
        if _is_image(match) and not os.path.isdir(match):  # noqa: PTH112
            yield Path(match)


def _walk(folder: str) -> Iterator[Path]:
    unlisted: list[OSError] = []
    for directory, folders, names in os.walk(folder, onerror=unlisted.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(directory, name) for name in sorted(names) if _is_image(name))
        yield from _pop_paths(unlisted)
    yield from _pop_paths(unlisted)


def _pop_paths(errors: list[OSError]) -> Iterator[Path]:
    while errors:
        yield Path(errors.pop().filename)


def _is_image(path: str) -> bool:
    name = os.path.basename(path)  # noqa: PTH119
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
