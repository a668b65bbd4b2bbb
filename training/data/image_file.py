"""Image files, decoded by the service's code; many of them by a few threads."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import joblib
import numpy as np
import numpy.typing as npt
from PIL import Image

from bundle import imaging, tensors
from bundle.errors import ItemError
from bundle.manifest import InputSpec
from training import progress
from training.errors import DataError
from training.progress import Log

MAX_PIXELS = 200_000_000  # of one file; these are the user's own
WORKERS = 4  # each holds a photograph in memory at its own size
_BITS = (8, 10, 12, 14)  # of sensors whose pixels are kept in 16

Unfit = Literal["stop", "skip", "convert"]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageFile:
    """A file and its pixels uint8 (height, width, channels) at the model's size.

    The pixels of an unreadable file are None.
    """

    path: Path
    sha256: str
    pixels: tensors.Pixels | None = None
    original_size: tuple[int, int] | None = None  # (height, width), None as well
    fault: str | None = None  # why it is unreadable, or what mode it has that is not the model's
    grey_peak: int | None = None  # the largest value of 16-bit grey
    deep_colours: bool = False  # more than 8 bits a colour

    def is_usable(self, unfit: Unfit) -> bool:
        return not self.fault or (unfit == "convert" and self.original_size is not None)

    def without_pixels(self) -> "ImageFile":
        return replace(self, pixels=None)


def read(path: Path, spec: InputSpec) -> ImageFile:
    """Read and decode a file. If it is unreadable, or its mode is not the model's, it has a fault."""
    data = b""
    try:
        data = path.read_bytes()
        decoded = imaging.decode(data, spec, MAX_PIXELS)
        found = _inspect(data, spec)
    except (OSError, ItemError) as error:
        return ImageFile(path, hashlib.sha256(data).hexdigest(), fault=str(error))
    return ImageFile(
        path,
        hashlib.sha256(data).hexdigest(),
        decoded.pixels,
        decoded.original_size,
        fault=found.fault,
        grey_peak=found.grey_peak,
        deep_colours=found.deep_colours,
    )


def decode(paths: Sequence[Path], spec: InputSpec, log: Log) -> npt.NDArray[np.uint8]:
    """Decode files to (n, height, width, channels), in order. Raises DataError if one is unreadable."""
    images = np.empty((len(paths), *spec.shape), dtype=np.uint8)

    def place(index: int) -> None:
        images[index] = _decode_one(paths[index], spec)

    each(place, range(len(paths)), f"decoding at {spec.height}x{spec.width}", log)
    return images


def decode_at_own_size(path: Path, spec: InputSpec, size: tuple[int, int]) -> tensors.Pixels:
    """Decode a file to its own (height, width). Raises DataError where it is unreadable."""
    return _decode_one(path, spec.model_copy(update={"height": size[0], "width": size[1]}))


def each(
    work: Callable[[Item], Result], items: Sequence[Item], desc: str, log: Log
) -> list[Result]:
    """Results of a function of each item, in order, by a few threads.

    A terminal gets a progress bar. Elsewhere `log` gets a line at the start.
    """
    pool = ThreadPoolExecutor(min(WORKERS, joblib.cpu_count()))
    try:
        return list(progress.track(pool.map(work, items), len(items), desc, "file", log))
    finally:
        pool.shutdown(cancel_futures=True)


def choose(directory: Path, files: Sequence[ImageFile], unfit: Unfit, log: Log) -> list[int]:
    """Indices of the usable files; each fault is logged, and files that are converted are counted.

    `skip` leaves out all that have a fault, and `convert` only those that are unreadable. Raises
    DataError if `unfit` is `stop` and a file has a fault.
    """
    faults = [file for file in files if file.fault]
    converted = Counter(file.fault for file in faults if file.is_usable(unfit))
    for file in faults:
        if not file.is_usable(unfit):
            log(f"{file.path}: {file.fault}")
    for fault, count in converted.items():
        log(f"{directory}: converted {count} of {len(files)} files: {fault}")
    if faults and unfit == "stop":
        raise DataError(
            f"{len(faults)} of {len(files)} files are unfit; mend them, or set data.unfit to skip or convert"
        )
    return [index for index, file in enumerate(files) if file.is_usable(unfit)]


def warn_of_depth(directory: Path, files: Sequence[ImageFile], spec: InputSpec, log: Log) -> None:
    """Log a warning if 16-bit files use little of their range, exceed white, or are in colour."""
    peaks = [file.grey_peak for file in files if file.grey_peak is not None]
    peak, white = max(peaks, default=0), spec.white_16_bit
    if peaks and peak <= white // 4:
        fit = next((2**bits - 1 for bits in _BITS if peak < 2**bits), white)
        log(
            f"warning: the {len(peaks)} 16-bit files in {directory} never exceed {peak} of {white}"
            f" (white), and most of their levels are lost: --set input.white_16_bit={fit}"
        )
    if above := sum(peak > white for peak in peaks):
        log(
            f"warning: {above} of {len(peaks)} 16-bit files in {directory} exceed"
            f" input.white_16_bit = {white}, up to {peak}: what is above becomes white"
        )
    if count := sum(file.deep_colours for file in files):
        log(
            f"warning: {count} files in {directory} have 16 bits a colour, of which the upper 8 are"
            " read: save them with 8 bits if they are dark"
        )


def _decode_one(path: Path, spec: InputSpec) -> tensors.Pixels:
    try:
        return imaging.decode(path.read_bytes(), spec, MAX_PIXELS).pixels
    except (OSError, ItemError) as error:
        raise DataError(f"{path} cannot be read: {error}; mend or remove it") from error


class _Mode(NamedTuple):
    fault: str | None
    grey_peak: int | None
    deep_colours: bool


def _inspect(data: bytes, spec: InputSpec) -> _Mode:
    """The mode of an image that can be read: in what it is not the model's, and its depth."""
    with Image.open(io.BytesIO(data), formats=imaging.FORMATS) as image:
        if image.mode.startswith("I"):
            return _Mode(
                _foreign_mode(image, spec), int(np.asarray(image).max()), deep_colours=False
            )
        deep = any(
            ";16" in str(tile.args) for tile in image.tile
        )  # which names the pixels in the file
        return _Mode(_foreign_mode(image, spec), None, deep)


def _foreign_mode(image: Image.Image, spec: InputSpec) -> str | None:
    """What is foreign to the model in the mode of an image."""
    if image.has_transparency_data:
        return f"its mode is {image.mode}, with transparency"
    takes = "grey" if spec.channels == 1 else "RGB"
    if _colours(image) != takes:
        return f"its mode is {image.mode}, and the model takes {takes}"
    return None


def _colours(image: Image.Image) -> Literal["grey", "RGB"] | None:
    # Only of an image that has one: to ask for the palette decodes the image.
    palette = image.getpalette("RGB") if image.mode == "P" else None
    if palette is not None:
        return "grey" if palette[0::3] == palette[1::3] == palette[2::3] else "RGB"
    if image.mode in ("1", "L") or image.mode.startswith("I"):
        return "grey"
    return "RGB" if image.mode in ("RGB", "YCbCr") else None
