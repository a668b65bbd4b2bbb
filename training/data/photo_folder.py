"""Photographs of normal parts to train on and of others to test with, in the layout of MVTec AD.

`train/good`, `train` or `good` holds normal ones, or else the directory itself does. Where they are
there, `val` or `val/good` has more of them, and `test/<kind>` others: those in `test/good` are
normal. `ground_truth/<kind>` has masks of the anomalous ones, `<stem>_mask.<ext>` or
`<stem>.<ext>`, in which all but 0 is anomalous.
Layout: Bergmann et al. 2019, "MVTec AD", section 3.
"""

import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from bundle import tensors
from bundle.manifest import InputSpec
from training.data import duplicates, image_file, image_folder
from training.data.image_file import ImageFile, Unfit
from training.data.image_file import decode as decode
from training.data.image_folder import Layout
from training.errors import DataError
from training.progress import Log

GOOD, MASKS = "good", "ground_truth"
FEWEST = 5  # photographs to train on: with fewer there is nothing to cross-fit
HOLD_OUT_FROM = 20  # photographs: of fewer, none can be spared to test with
FEWEST_TESTED = 2
SIDE = 64  # pixels: what looks different at this size is different
_NAMED = 3  # files in a message


@dataclass(frozen=True)
class PhotoFolder:
    """Paths of photographs by split; all can be decoded, and no photograph is in two splits.

    Of the anomalous ones, `labels` are indices into `kinds`, and `masks` has None where no anomaly
    is marked. `sha256` has the digest of all paths and bytes of each folder, by its name. `size` has
    the medians of height and width of those to train on.
    """

    directory: Path
    training: tuple[Path, ...]  # normal, without copies
    validation: tuple[Path, ...]  # normal, without copies
    normal: tuple[Path, ...]  # to test with
    anomalous: tuple[Path, ...]  # to test with
    kinds: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    masks: tuple[Path | None, ...]
    sha256: dict[str, str]
    size: tuple[int, int]


def find(directory: Path, spec: InputSpec, unfit: Unfit, log: Log) -> PhotoFolder:
    """Find and check the photographs of a directory. The size of `spec` has no effect.

    Raises DataError where there is no such directory, where it is unclear which photographs are
    normal, where they are too few, unfit (see `folder.read`), of one colour, all the same, or in
    two splits, and where a mask is unreadable.
    """
    found = image_folder.layout(directory)
    homes = _homes(found, log)
    parts = [_examine(found, home, spec, unfit, log) for home in homes if home]
    photos = _identify({part.home: part.photos for part in parts}, spec)
    training, validation, tested = (photos[home] if home else [] for home in homes)
    normal = [photo for photo in tested if photo.kind == GOOD]
    anomalous = [photo for photo in tested if photo.kind != GOOD]
    _check_apart(training, validation, normal, anomalous)
    _check_colours([*training, *validation, *normal], spec)
    fitted = _drop_copies(training, log)
    _check_number(homes.training, training, fitted)
    _check_number_tested(normal)
    kinds = tuple(sorted({photo.kind for photo in anomalous}))
    return PhotoFolder(
        directory,
        _paths(fitted),
        _paths(_drop_copies(validation, log)),
        _paths(normal),
        _paths(anomalous),
        kinds,
        np.array([kinds.index(photo.kind) for photo in anomalous], dtype=np.int64),
        _find_masks(directory / MASKS, homes.test, anomalous, log),
        {found.name(part.home): part.sha256 for part in parts},
        _find_median_size(fitted),
    )


def hold_out(found: PhotoFolder, most: int, seed: int) -> PhotoFolder:
    """Move a random fifth of the training photographs, at most `most`, to the normal test images.

    Nothing is moved where there are normal test images, or fewer than `HOLD_OUT_FROM` photographs
    to train on.
    """
    count = len(found.training)
    if found.normal or count < HOLD_OUT_FROM:
        return found
    order = np.random.default_rng(seed).permutation(count)
    drawn = [found.training[index] for index in order]
    tested = min(most, count // 5)
    return replace(found, training=tuple(drawn[tested:]), normal=tuple(drawn[:tested]))


def decode_mask(path: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """True in the anomaly, (height, width) = `size`; None where nothing is marked.

    Raises DataError where the mask is unreadable.
    """
    marked = _marked(path)
    anomaly = Image.fromarray(marked.astype(np.uint8) * 255)
    reduced = np.asarray(anomaly.resize(size[::-1], Image.Resampling.BOX))
    # Half of a pixel is enough; of thin anomalies, half of as much as any pixel has.
    return reduced >= max(1, reduced.max() / 2) if reduced.any() else None


class _Homes(NamedTuple):
    """Directories of the photographs of each split."""

    training: Path
    validation: Path | None
    test: Path | None


@dataclass(frozen=True)
class _Photo:
    """A file, what it looks like at a small size, and whether that is one colour."""

    file: ImageFile
    kind: str  # in `test`: the folder that it is in
    look: str
    one_colour: bool
    digest: str = ""  # of its pixels where another file looks the same, else of its bytes

    @property
    def path(self) -> Path:
        return self.file.path


Photos = Sequence[_Photo]


@dataclass(frozen=True)
class _Part:
    home: Path
    photos: Photos
    sha256: str


def _homes(found: Layout, log: Log) -> _Homes:
    directory = found.directory
    split = (
        directory / GOOD
        if found.training == directory and (directory / GOOD).is_dir()
        else found.training
    )
    training = _home_of_normal(split, log) if split == found.training != directory else split
    validation = _home_of_normal(found.validation, log) if found.validation else None
    if split != directory:
        masks = directory / MASKS if (directory / MASKS).is_dir() else None
        image_folder.log_left_out(
            directory, [path for path in (split, found.validation, found.test, masks) if path], log
        )
    return _Homes(training, validation, found.test)


def _home_of_normal(split: Path, log: Log) -> Path:
    labels = [path.name for path in image_folder.subfolders(split)]
    if not labels:
        return split
    if GOOD not in labels:
        raise DataError(
            f"{split} holds {', '.join(labels)}: put the normal ones into {split / GOOD}"
        )
    image_folder.log_left_out(split, [split / GOOD], log)
    return split / GOOD


def _examine(found: Layout, home: Path, spec: InputSpec, unfit: Unfit, log: Log) -> _Part:
    besides = (*found.besides, MASKS) if home == found.directory else ()
    paths = image_folder.list_images(home, log, besides)
    if home == found.test:
        _check_labels(paths, home)
    small = spec.model_copy(update={"height": SIDE, "width": SIDE})
    photos = image_file.each(
        lambda path: _look_at(path, home, small), paths, f"checking {found.name(home)}", log
    )
    files = [photo.file for photo in photos]
    usable = image_folder.choose(home, files, spec, unfit, log)
    return _Part(home, [photos[index] for index in usable], image_folder.digest(home, files))


def _check_labels(paths: Sequence[Path], test: Path) -> None:
    if bare := next((path for path in paths if path.parent == test), None):
        raise DataError(
            f"{bare} has no label: put it into {test / GOOD}, or a folder named after its anomaly"
        )


def _look_at(path: Path, home: Path, small: InputSpec) -> _Photo:
    file = image_file.read(path, small)
    kind = path.relative_to(home).parts[0]
    if file.pixels is None:
        return _Photo(file, kind, "", one_colour=False)
    look = _digest(file.pixels, file.original_size)
    return _Photo(file.without_pixels(), kind, look, _is_one_colour(file.pixels))


def _digest(pixels: tensors.Pixels, size: object) -> str:
    return hashlib.sha256(f"{size}".encode() + pixels.tobytes()).hexdigest()


def _is_one_colour(pixels: tensors.Pixels) -> bool:
    return bool((pixels == pixels[0, 0]).all())


def _identify(parts: Mapping[Path, Photos], spec: InputSpec) -> dict[Path, Photos]:
    """The same photographs, with digests that are equal where pixels are."""
    alike: dict[str, set[str]] = {}
    for photo in chain(*parts.values()):
        alike.setdefault(photo.look, set()).add(photo.file.sha256)

    def identify(photo: _Photo) -> _Photo:
        # What looks the same at a small size may differ in a scratch.
        same = len(alike[photo.look]) > 1
        pixels = _digest(_pixels(photo, spec), photo.file.original_size) if same else None
        return replace(photo, digest=pixels or photo.file.sha256)

    return {home: [identify(photo) for photo in photos] for home, photos in parts.items()}


def _pixels(photo: _Photo, spec: InputSpec) -> tensors.Pixels:
    assert photo.file.original_size is not None  # it was decoded
    return image_file.decode_at_own_size(photo.path, spec, photo.file.original_size)


def _find_median_size(photos: Photos) -> tuple[int, int]:
    """Medians of the heights and of the widths."""
    height, width = np.median([photo.file.original_size for photo in photos], axis=0)
    return int(height), int(width)


def _paths(photos: Photos) -> tuple[Path, ...]:
    return tuple(photo.path for photo in photos)


def _identified(photos: Photos) -> duplicates.Identified:
    return [(photo.digest, photo.path) for photo in photos]


def _drop_copies(photos: Photos, log: Log) -> Photos:
    return [photos[index] for index in duplicates.drop(_identified(photos), log)]


def _check_apart(training: Photos, validation: Photos, normal: Photos, anomalous: Photos) -> None:
    splits = {
        "to train on": training,
        "to validate with": validation,
        "to test with, normal": normal,
        "to test with, anomalous": anomalous,
    }
    duplicates.check_apart({split: _identified(photos) for split, photos in splits.items()})


def _check_colours(photos: Photos, spec: InputSpec) -> None:
    blank = [photo for photo in photos if photo.one_colour and _is_one_colour(_pixels(photo, spec))]
    if blank:
        names = ", ".join(str(photo.path) for photo in blank[:_NAMED])
        more = f" and {len(blank) - _NAMED} more" if len(blank) > _NAMED else ""
        raise DataError(f"every pixel has one colour in {names}{more}: remove what shows nothing")


def _check_number(home: Path, photos: Photos, different: Photos) -> None:
    if len(different) == 1 < len(photos):
        raise DataError(
            f"all {len(photos)} photographs in {home} are the same, as {photos[0].path} and"
            f" {photos[1].path}: take photographs of different parts"
        )
    if len(different) < FEWEST:
        raise DataError(
            f"{len(different)} photographs in {home} are too few to train on: take at least"
            f" {FEWEST} different ones; from {HOLD_OUT_FROM} on some are held out to test with"
        )


def _check_number_tested(normal: Photos) -> None:
    if len(normal) == 1:
        raise DataError(
            f"{normal[0].path.parent} holds one photograph: take at least {FEWEST_TESTED}, or none,"
            " and some are held out"
        )


def _find_masks(home: Path, test: Path | None, photos: Photos, log: Log) -> tuple[Path | None, ...]:
    if test is None or not photos or not home.is_dir():
        return (None,) * len(photos)
    masks = [_find_mask(home, test, photo.path) for photo in photos]
    marked = image_file.each(
        lambda mask: mask is not None and bool(_marked(mask).any()), masks, "checking masks", log
    )
    for photo, is_marked in zip(photos, marked, strict=True):
        if not is_marked:
            log(f"{photo.path}: no anomaly is marked; it counts by its score alone")
    return tuple(mask if is_marked else None for mask, is_marked in zip(masks, marked, strict=True))


def _find_mask(home: Path, test: Path, path: Path) -> Path | None:
    """The mask of a photograph, which lies in folders of the same names."""
    place = home / path.relative_to(test).parent
    named = [
        mask
        for stem in (f"{path.stem}_mask", path.stem)
        for mask in sorted(place.glob(f"{glob.escape(stem)}.*"))
        if image_folder.is_image(mask, home)
    ]
    return named[0] if named else None


def _marked(path: Path) -> npt.NDArray[np.bool_]:
    """True in the anomaly, (height, width), at the mask's own size."""
    try:
        with Image.open(path) as mask:
            plain = mask.mode in ("1", "L", "F") or mask.mode.startswith("I")
            marks = np.asarray(mask if plain else mask.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"the mask {path} cannot be read: {error}; mend or remove it") from error
    # Only 0 is normal, whatever numbers or colours mark the anomalies.
    marked: npt.NDArray[np.bool_] = (marks.reshape(*marks.shape[:2], -1) != 0).any(axis=2)
    return marked
