"""Test images that a bundle keeps for people who want to try the model."""

import io
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image

from bundle import imaging
from bundle.errors import ItemError
from bundle.manifest import InputSpec
from training.data import image_folder
from training.data.image_file import MAX_PIXELS
from training.data.splits import Split
from training.errors import DataError
from training.progress import Log

MAX_IMAGES = 300  # of all labels together
MAX_PHOTOGRAPHS = 12
MAX_SIDE = 512  # pixels of a photograph
_JPEG_QUALITY = 85
Item = TypeVar("Item")
_DATE = (1980, 1, 1, 0, 0, 0)  # so that equal images make equal files


class Example(NamedTuple):
    """An encoded image, the suffix of its file, and its label, which may be empty."""

    label: str
    suffix: str
    content: bytes


def write_images(test: Split, classes: tuple[str, ...], path: Path) -> None:
    """Write the first test images of each class as PNG."""
    labels = [""] * len(test) if test.labels is None else [classes[each] for each in test.labels]
    chosen = _choose(zip(labels, range(len(test)), strict=True), MAX_IMAGES)
    encoded = (
        Example(label, ".png", imaging.encode_png(test.images[index])) for label, index in chosen
    )
    _write(encoded, path)


def write_photographs(directory: Path, spec: InputSpec, target: Path, log: Log) -> None:
    """Write the first photographs of each subfolder, reduced, as JPEG without metadata.

    They are those in `test`, if there is such a folder, and are decoded as for the model. Raises
    DataError if there are none, or one is unreadable.
    """
    home = image_folder.find_layout(directory).test or directory
    paths = image_folder.list_images(home, log)
    labels = ("" if path.parent == home else path.parent.name for path in paths)
    chosen = _choose(zip(labels, paths, strict=True), MAX_PHOTOGRAPHS)
    _write((Example(label, ".jpg", _reduce(photo, spec)) for label, photo in chosen), target)
    log(f"kept {len(chosen)} of {len(paths)} photographs, of {len({*dict(chosen)})} labels")


def _choose(labelled: Iterable[tuple[str, Item]], count: int) -> list[tuple[str, Item]]:
    """Choose as many of each label, the first ones, at most `count` together."""
    by_label: dict[str, list[tuple[str, Item]]] = defaultdict(list)
    for label, item in labelled:
        by_label[label].append((label, item))
    share = max(1, count // len(by_label))
    return [each for label in sorted(by_label) for each in by_label[label][:share]][:count]


def _reduce(photo: Path, spec: InputSpec) -> bytes:
    try:
        image = Image.fromarray(imaging.decode_original(photo.read_bytes(), spec, MAX_PIXELS))
    except (OSError, ItemError) as error:
        raise DataError(f"{photo} cannot be read: {error}") from error
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _write(examples: Iterable[Example], path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number, (label, suffix, content) in enumerate(examples):
            name = f"{number:03d}{suffix}"
            archive.writestr(zipfile.ZipInfo(f"{label}/{name}" if label else name, _DATE), content)
