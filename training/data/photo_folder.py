"""Photographs to train and test a detector, in the layout of MVTec AD.

`train/good`, `train` or `good` holds normal images, or else the directory itself does. These
folders are optional:

- `val` or `val/good`: more normal images;
- `test/good`: normal images to test with;
- `test/<kind>`: anomalous images to test with;
- `ground_truth/<kind>`: their masks `<stem>_mask.<ext>` or `<stem>.<ext>`, not 0 in anomalies.

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
from training.data.image_file import ImageFile, InvalidFilePolicy
from training.data.image_folder import Layout
from training.errors import DataError
from training.progress import Log

GOOD, MASKS = "good", "ground_truth"
MIN_TRAINING_IMAGES = 5  # one for each fold of cross-fitting
MIN_IMAGES_TO_HOLD_OUT = 20  # with fewer, all are needed for training
MIN_TEST_IMAGES = 2
PREVIEW_PIXELS = 64  # side of a preview: images with different previews are different
_MAX_NAMED_FILES = 3  # in a message


@dataclass(frozen=True)
class PhotoFolder:
    """Paths of photographs by split; all can be decoded, and no photograph is in two splits.

    `labels` of the anomalous photographs index `kinds`; a mask is None if no anomaly is marked.
    `sha256` has the digest of all paths and bytes of each folder, by its name. `size` has the
    medians of height and width of the training photographs.
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


def find(directory: Path, spec: InputSpec, policy: InvalidFilePolicy, log: Log) -> PhotoFolder:
    """Find and check the photographs of a directory. The size of `spec` has no effect.

    Raises DataError if there is no such directory, if labels are missing, or if a mask is
    unreadable. Raises DataError if photographs are too few, invalid (see `image_folder.read`), of
    one colour, all the same, or in two splits.
    """
    layout = image_folder.find_layout(directory)
    homes = _find_homes(layout, log)
    splits = [_check_split(layout, home, spec, policy, log) for home in homes if home]
    photos = _identify({split.home: split.photos for split in splits}, spec)
    training, validation, tested = (photos[home] if home else [] for home in homes)
    normal = [photo for photo in tested if photo.kind == GOOD]
    anomalous = [photo for photo in tested if photo.kind != GOOD]
    _check_disjoint(training, validation, normal, anomalous)
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
        {layout.name(split.home): split.sha256 for split in splits},
        _find_median_size(fitted),
    )


def hold_out(photos: PhotoFolder, most: int, seed: int) -> PhotoFolder:
    """Move a random fifth of the training photographs, at most `most`, to the normal test images.

    Nothing is moved if there are normal test images, or if there are fewer than
    `MIN_IMAGES_TO_HOLD_OUT` training photographs.
    """
    count = len(photos.training)
    if photos.normal or count < MIN_IMAGES_TO_HOLD_OUT:
        return photos
    order = np.random.default_rng(seed).permutation(count)
    drawn = [photos.training[index] for index in order]
    tested = min(most, count // 5)
    return replace(photos, training=tuple(drawn[tested:]), normal=tuple(drawn[:tested]))


def decode_mask(path: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Mask (height, width) = `size`, true in the anomaly; None if nothing is marked.

    Raises DataError if the mask is unreadable.
    """
    marked = _read_mask(path)
    anomaly = Image.fromarray(marked.astype(np.uint8) * 255)
    reduced = np.asarray(anomaly.resize(size[::-1], Image.Resampling.BOX))
    # Half a pixel counts as marked; thin anomalies reach less, so half of their maximum counts.
    return reduced >= max(1, reduced.max() / 2) if reduced.any() else None


class _Homes(NamedTuple):
    """Directories of the photographs of each split."""

    training: Path
    validation: Path | None
    test: Path | None


@dataclass(frozen=True)
class _Photo:
    """A file, and its preview at a small size."""

    file: ImageFile
    kind: str  # in `test`: the name of its folder
    preview_digest: str
    one_colour: bool  # the preview
    digest: str = ""  # of its pixels if another file has the same preview, else of its bytes

    @property
    def path(self) -> Path:
        return self.file.path


Photos = Sequence[_Photo]


@dataclass(frozen=True)
class _SplitPhotos:
    home: Path
    photos: Photos
    sha256: str


def _find_homes(layout: Layout, log: Log) -> _Homes:
    directory = layout.directory
    flat = layout.training == directory and (directory / GOOD).is_dir()
    split = directory / GOOD if flat else layout.training
    training = _find_normal(split, log) if split == layout.training != directory else split
    validation = _find_normal(layout.validation, log) if layout.validation else None
    if split != directory:
        masks = directory / MASKS if (directory / MASKS).is_dir() else None
        taken = [path for path in (split, layout.validation, layout.test, masks) if path]
        image_folder.log_skipped(directory, taken, log)
    return _Homes(training, validation, layout.test)


def _find_normal(split: Path, log: Log) -> Path:
    """The folder of the normal photographs of a split: `good`, or the split without subfolders."""
    labels = [path.name for path in image_folder.list_subfolders(split)]
    if not labels:
        return split
    if GOOD not in labels:
        raise DataError(
            f"{split} holds {', '.join(labels)}: put the normal images into {split / GOOD}"
        )
    image_folder.log_skipped(split, [split / GOOD], log)
    return split / GOOD


def _check_split(
    layout: Layout, home: Path, spec: InputSpec, policy: InvalidFilePolicy, log: Log
) -> _SplitPhotos:
    """Read every photograph of a split once; takes the usable ones."""
    excluded = (*layout.other_splits, MASKS) if home == layout.directory else ()
    paths = image_folder.list_images(home, log, excluded)
    if home == layout.test:
        _check_labels(paths, home)
    small = spec.model_copy(update={"height": PREVIEW_PIXELS, "width": PREVIEW_PIXELS})
    photos = image_file.map_with_progress(
        lambda path: _preview(path, home, small), paths, f"checking {layout.name(home)}", log
    )
    files = [photo.file for photo in photos]
    usable = image_folder.choose(home, files, spec, policy, log)
    sha256 = image_folder.digest(home, files)
    return _SplitPhotos(home, [photos[index] for index in usable], sha256)


def _check_labels(paths: Sequence[Path], test: Path) -> None:
    if bare := next((path for path in paths if path.parent == test), None):
        raise DataError(
            f"{bare} has no label: put it into {test / GOOD}, or a folder named after its anomaly"
        )


def _preview(path: Path, home: Path, small: InputSpec) -> _Photo:
    file = image_file.read(path, small)
    kind = path.relative_to(home).parts[0]
    if file.pixels is None:
        return _Photo(file, kind, "", one_colour=False)
    digest = _digest(file.pixels, file.original_size)
    return _Photo(file.without_pixels(), kind, digest, _is_one_colour(file.pixels))


def _digest(pixels: tensors.Pixels, size: object) -> str:
    return hashlib.sha256(f"{size}".encode() + pixels.tobytes()).hexdigest()


def _is_one_colour(pixels: tensors.Pixels) -> bool:
    return bool((pixels == pixels[0, 0]).all())


def _identify(splits: Mapping[Path, Photos], spec: InputSpec) -> dict[Path, Photos]:
    """The same photographs, with digests that are equal if the pixels are equal."""
    alike: dict[str, set[str]] = {}
    for photo in chain(*splits.values()):
        alike.setdefault(photo.preview_digest, set()).add(photo.file.sha256)

    def identify(photo: _Photo) -> _Photo:
        # Photographs with the same preview may still differ in a scratch.
        ambiguous = len(alike[photo.preview_digest]) > 1
        pixels = _digest(_decode(photo, spec), photo.file.original_size) if ambiguous else None
        return replace(photo, digest=pixels or photo.file.sha256)

    return {home: [identify(photo) for photo in photos] for home, photos in splits.items()}


def _decode(photo: _Photo, spec: InputSpec) -> tensors.Pixels:
    assert photo.file.original_size is not None  # unreadable photographs were excluded
    return image_file.decode_at_own_size(photo.path, spec, photo.file.original_size)


def _find_median_size(photos: Photos) -> tuple[int, int]:
    """Medians of the heights and of the widths."""
    height, width = np.median([photo.file.original_size for photo in photos], axis=0)
    return int(height), int(width)


def _paths(photos: Photos) -> tuple[Path, ...]:
    return tuple(photo.path for photo in photos)


def _hashed_paths(photos: Photos) -> duplicates.HashedPaths:
    return [(photo.digest, photo.path) for photo in photos]


def _drop_copies(photos: Photos, log: Log) -> Photos:
    return [photos[index] for index in duplicates.find_originals(_hashed_paths(photos), log)]


def _check_disjoint(
    training: Photos, validation: Photos, normal: Photos, anomalous: Photos
) -> None:
    splits = {
        "to train on": training,
        "to validate with": validation,
        "to test with, normal": normal,
        "to test with, anomalous": anomalous,
    }
    duplicates.check_disjoint({split: _hashed_paths(photos) for split, photos in splits.items()})


def _check_colours(photos: Photos, spec: InputSpec) -> None:
    blank = [photo for photo in photos if photo.one_colour and _is_one_colour(_decode(photo, spec))]
    if blank:
        names = ", ".join(str(photo.path) for photo in blank[:_MAX_NAMED_FILES])
        rest = len(blank) - _MAX_NAMED_FILES
        more = f" and {rest} more" if rest > 0 else ""
        raise DataError(f"every pixel has the same colour in {names}{more}: remove these files")


def _check_number(home: Path, photos: Photos, different: Photos) -> None:
    if len(different) == 1 < len(photos):
        raise DataError(
            f"all {len(photos)} photographs in {home} are the same, as {photos[0].path} and"
            f" {photos[1].path}: take photographs of different parts"
        )
    if len(different) < MIN_TRAINING_IMAGES:
        raise DataError(
            f"{len(different)} photographs in {home} are too few to train on: take at least"
            f" {MIN_TRAINING_IMAGES} different ones; with {MIN_IMAGES_TO_HOLD_OUT} or more, some"
            " are held out to test with"
        )


def _check_number_tested(normal: Photos) -> None:
    if len(normal) == 1:
        raise DataError(
            f"{normal[0].path.parent} holds one photograph: take at least {MIN_TEST_IMAGES}, or"
            " none to hold out training photographs"
        )


def _find_masks(home: Path, test: Path | None, photos: Photos, log: Log) -> tuple[Path | None, ...]:
    if test is None or not photos or not home.is_dir():
        return (None,) * len(photos)
    masks = [_find_mask(home, test, photo.path) for photo in photos]
    marked = image_file.map_with_progress(
        lambda mask: mask is not None and bool(_read_mask(mask).any()), masks, "checking masks", log
    )
    for photo, is_marked in zip(photos, marked, strict=True):
        if not is_marked:
            log(f"{photo.path}: no anomaly is marked; it counts by its score alone")
    return tuple(mask if is_marked else None for mask, is_marked in zip(masks, marked, strict=True))


def _find_mask(home: Path, test: Path, path: Path) -> Path | None:
    """The mask of a photograph, in a folder of the same name."""
    folder = home / path.relative_to(test).parent
    named = [
        mask
        for stem in (f"{path.stem}_mask", path.stem)
        for mask in sorted(folder.glob(f"{glob.escape(stem)}.*"))
        if image_folder.is_image(mask, home)
    ]
    return named[0] if named else None


def _read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Mask (height, width) at its own size, true in the anomaly."""
    try:
        with Image.open(path) as mask:
            grey = mask.mode in ("1", "L", "F") or mask.mode.startswith("I")
            values = np.asarray(mask if grey else mask.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"the mask {path} cannot be read: {error}; mend or remove it") from error
    # Any value but 0 marks an anomaly, because data sets use different values or colours.
    marked: npt.NDArray[np.bool_] = (values.reshape(*values.shape[:2], -1) != 0).any(axis=2)
    return marked
