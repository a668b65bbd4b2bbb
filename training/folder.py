"""Folders of images of any size, in any format that the service reads, brought to the model's size by its own code."""

import hashlib
import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from service import imaging
from service.errors import ItemError
from service.manifest import InputSpec
from training.errors import DataError

MAX_PIXELS = 200_000_000  # of one file; these are the user's own
_OTHER_SUFFIXES = {".avif", ".heic", ".heif", ".jxl", ".psd", ".svg", ".tga"}  # images that are not read, as is said

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Folder:
    """Images uint8 (n, height, width, channels), in the order of their paths below the directory, and each one's class.

    The classes are the names of the subfolders; `labels` is None where images lie beside them or there is only one.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    classes: tuple[str, ...]
    sha256: str  # of all paths and bytes
    paths: tuple[Path, ...]


def read(
    directory: Path,
    spec: InputSpec,
    unfit: Literal["stop", "skip", "convert"],
    tell: Tell,
    besides: Collection[str] = (),
) -> Folder:
    """Read every image below a directory, but not in the subfolders `besides`; `tell` hears of each that is unfit.

    Unfit is a file that cannot be read, or whose mode (grey, colour, with transparency) is not the model's.
    Raises DataError where there is none, or, if `unfit` is `stop`, at the end where one is unfit. `skip` leaves unfit
    files out, and `convert` only those that cannot be read.
    """
    found = sorted(path for path in directory.rglob("*") if not _is_hidden(path, directory))
    found = [path for path in found if path.relative_to(directory).parts[0] not in besides]
    paths = [path for path in found if is_image(path, directory)]
    others = sorted({*found} - {*paths})
    for link in (path for path in others if path.is_symlink() and path.is_dir()):
        tell(f"{link}: links to folders are not followed")
    if count := sum(path.is_file() for path in others):
        tell(f"{directory}: passed over what is no image by its name, files: {count}")
    images: list[npt.NDArray[np.uint8]] = []
    taken: list[Path] = []
    digest = hashlib.sha256()
    faults = 0
    for path in tqdm(paths, desc=f"reading {directory.name}", unit="file"):
        data = b""
        try:
            data = path.read_bytes()
            pixels = imaging.decode(data, spec, MAX_PIXELS).pixels
            fault, usable = _foreign_mode(data, spec), unfit == "convert"
        except (OSError, ItemError) as error:
            fault, usable = str(error), False
        digest.update(f"{path.relative_to(directory).as_posix()}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        if fault:
            tell(f"{path}: {fault}")
            faults += 1
        if not fault or usable:
            images.append(pixels)
            taken.append(path.relative_to(directory))
    if faults and unfit == "stop":
        raise DataError(f"{faults} of {len(paths)} files are unfit; mend them, or set data.unfit to skip or convert")
    if not images:
        raise DataError(f"there are no images in {directory}; --data names a directory of {', '.join(imaging.FORMATS)}")
    classes = sorted({path.parts[0] for path in taken if len(path.parts) > 1})
    labels = None
    if len(classes) > 1 and all(len(path.parts) > 1 for path in taken):
        labels = np.array([classes.index(path.parts[0]) for path in taken], dtype=np.int64)
    return Folder(
        np.stack(images), labels, tuple(classes) if labels is not None else (), digest.hexdigest(), tuple(taken)
    )


def is_image(path: Path, directory: Path) -> bool:
    """Whether a file below a directory is an image by its name, and not hidden."""
    suffix = path.suffix.lower()
    known = suffix in _OTHER_SUFFIXES or Image.registered_extensions().get(suffix) in imaging.FORMATS
    return known and not _is_hidden(path, directory) and path.is_file()


def _is_hidden(path: Path, directory: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(directory).parts)


def _foreign_mode(data: bytes, spec: InputSpec) -> str | None:
    """What is foreign to the model in the mode of an image that can be read."""
    with Image.open(io.BytesIO(data), formats=imaging.FORMATS) as image:
        if image.has_transparency_data:
            return f"its mode is {image.mode}, with transparency"
        takes = "grey" if spec.channels == 1 else "RGB"
        if _colours(image) != takes:
            return f"its mode is {image.mode}, and the model takes {takes}"
    return None


def _colours(image: Image.Image) -> Literal["grey", "RGB"] | None:
    palette = image.getpalette("RGB")
    if palette is not None:
        return "grey" if palette[0::3] == palette[1::3] == palette[2::3] else "RGB"
    if image.mode in ("1", "L") or image.mode.startswith("I"):
        return "grey"
    return "RGB" if image.mode in ("RGB", "YCbCr") else None
