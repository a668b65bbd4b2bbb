"""Image files, decoded by the service's code in a few threads."""

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

MAX_PIXELS = 200_000_000  # of one file; the limit is high because the files are the user's own
WORKERS = 4  # each holds a photograph in memory at its own size
_SENSOR_BITS = (8, 10, 12, 14)  # of sensors whose pixels are stored in 16

InvalidFilePolicy = Literal["stop", "skip", "convert"]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageFile:
    """A file and its pixels uint8 (height, width, channels) at the model's size.

    An unreadable file has neither pixels nor a size.
    """

    path: Path
    sha256: str
    pixels: tensors.Pixels | None = None
    original_size: tuple[int, int] | None = None  # (height, width)
    problem: str | None = None  # reason why it is unreadable, or its unsupported mode
    grey_peak: int | None = None  # the largest value of 16-bit grey
    deep_colours: bool = False  # more than 8 bits a colour

    def is_usable(self, policy: InvalidFilePolicy) -> bool:
        """True if the file is valid, or if it is readable and the policy is to convert it."""
        return not self.problem or (policy == "convert" and self.original_size is not None)

    def without_pixels(self) -> "ImageFile":
        """A copy that frees the memory of the pixels."""
        return replace(self, pixels=None)


def read(path: Path, spec: InputSpec) -> ImageFile:
    """Read and decode a file; `problem` is set if it is unreadable or of another mode."""
    data = b""
    try:
        data = path.read_bytes()
        decoded = imaging.decode(data, spec, MAX_PIXELS)
        mode = _inspect(data, spec)
    except (OSError, ItemError) as error:
        return ImageFile(path, hashlib.sha256(data).hexdigest(), problem=str(error))
    return ImageFile(
        path,
        hashlib.sha256(data).hexdigest(),
        decoded.pixels,
        decoded.original_size,
        problem=mode.problem,
        grey_peak=mode.grey_peak,
        deep_colours=mode.deep_colours,
    )


def decode(paths: Sequence[Path], spec: InputSpec, log: Log) -> npt.NDArray[np.uint8]:
    """Decode files to (n, height, width, channels), in order.

    Raises DataError if one is unreadable.
    """
    images = np.empty((len(paths), *spec.shape), dtype=np.uint8)

    def decode_into_place(index: int) -> None:
        images[index] = _decode_one(paths[index], spec)

    map_with_progress(
        decode_into_place, range(len(paths)), f"decoding at {spec.height}x{spec.width}", log
    )
    return images


def decode_at_own_size(path: Path, spec: InputSpec, size: tuple[int, int]) -> tensors.Pixels:
    """Decode a file to its own (height, width). Raises DataError if it is unreadable."""
    return _decode_one(path, spec.model_copy(update={"height": size[0], "width": size[1]}))


def map_with_progress(
    work: Callable[[Item], Result], items: Sequence[Item], desc: str, log: Log
) -> list[Result]:
    """Results of a function of each item, in order, computed in a few threads.

    A terminal shows a progress bar. Elsewhere a line is logged at the start.
    """
    pool = ThreadPoolExecutor(min(WORKERS, joblib.cpu_count()))
    try:
        return list(progress.track(pool.map(work, items), len(items), desc, "file", log))
    finally:
        pool.shutdown(cancel_futures=True)


def choose(
    directory: Path, files: Sequence[ImageFile], policy: InvalidFilePolicy, log: Log
) -> list[int]:
    """Indices of the usable files; logs each invalid file, and the number of converted ones.

    `skip` excludes all invalid files, and `convert` only the unreadable ones. Raises DataError if
    the policy is `stop` and a file is invalid.
    """
    invalid = [file for file in files if file.problem]
    converted = Counter(file.problem for file in invalid if file.is_usable(policy))
    for file in invalid:
        if not file.is_usable(policy):
            log(f"{file.path}: {file.problem}")
    for problem, count in converted.items():
        log(f"{directory}: converted {count} of {len(files)} files: {problem}")
    if invalid and policy == "stop":
        raise DataError(
            f"{len(invalid)} of {len(files)} files are invalid; mend them, or set"
            " data.invalid_files to skip or convert"
        )
    return [index for index, file in enumerate(files) if file.is_usable(policy)]


def warn_of_depth(directory: Path, files: Sequence[ImageFile], spec: InputSpec, log: Log) -> None:
    """Log a warning if 16-bit files use little of their range, exceed white, or are in colour."""
    peaks = [file.grey_peak for file in files if file.grey_peak is not None]
    peak, white = max(peaks, default=0), spec.white_16_bit
    if peaks and peak <= white // 4:
        better = next((2**bits - 1 for bits in _SENSOR_BITS if peak < 2**bits), white)
        log(
            f"warning: the {len(peaks)} 16-bit files in {directory} never exceed {peak} of {white}"
            f" (white), and most of their levels are lost: --set input.white_16_bit={better}"
        )
    if above := sum(peak > white for peak in peaks):
        log(
            f"warning: {above} of {len(peaks)} 16-bit files in {directory} exceed"
            f" input.white_16_bit = {white}, up to {peak}: higher values become white"
        )
    if count := sum(file.deep_colours for file in files):
        log(
            f"warning: {count} files in {directory} have 16 bits a colour, of which the upper 8 are"
            " read: if they are dark, save them with 8 bits"
        )


def _decode_one(path: Path, spec: InputSpec) -> tensors.Pixels:
    try:
        return imaging.decode(path.read_bytes(), spec, MAX_PIXELS).pixels
    except (OSError, ItemError) as error:
        raise DataError(f"{path} cannot be read: {error}; mend or remove it") from error


class _Mode(NamedTuple):
    problem: str | None
    grey_peak: int | None
    deep_colours: bool


def _inspect(data: bytes, spec: InputSpec) -> _Mode:
    """The mode of a readable image: the difference from the model's mode, and its depth."""
    with Image.open(io.BytesIO(data), formats=imaging.FORMATS) as image:
        problem = _describe_unsupported_mode(image, spec)
        if image.mode.startswith("I"):
            return _Mode(problem, int(np.asarray(image).max()), deep_colours=False)
        # `mode` is of the decoded image; only the tile names the pixels in the file.
        deep = any(";16" in str(tile.args) for tile in image.tile)
        return _Mode(problem, None, deep)


def _describe_unsupported_mode(image: Image.Image, spec: InputSpec) -> str | None:
    """The mode of an image, if it is not the model's."""
    if image.has_transparency_data:
        return f"its mode is {image.mode}, with transparency"
    expected = "grey" if spec.channels == 1 else "RGB"
    if _find_colours(image) != expected:
        return f"its mode is {image.mode}, and the model takes {expected}"
    return None


def _find_colours(image: Image.Image) -> Literal["grey", "RGB"] | None:
    # `getpalette` decodes the image, so it is called only for images with a palette.
    palette = image.getpalette("RGB") if image.mode == "P" else None
    if palette is not None:
        return "grey" if palette[0::3] == palette[1::3] == palette[2::3] else "RGB"
    if image.mode in ("1", "L") or image.mode.startswith("I"):
        return "grey"
    return "RGB" if image.mode in ("RGB", "YCbCr") else None
