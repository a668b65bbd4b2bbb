"""Folders of images of any size and format, brought to the model's size by the service's code.

Folders at the top that are called `train`, `val` and `test`, in upper or lower case, are splits.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bundle import imaging
from bundle.manifest import InputSpec
from training.data import duplicates, image_file
from training.data.image_file import ImageFile, Unfit
from training.errors import DataError
from training.progress import Log

TRAINING, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "validation")
VALID = (
    "valid"  # a split beside `train` or `test` alone: elsewhere it may be a class, beside `invalid`
)
_OTHER_SUFFIXES = {
    ".avif",
    ".heic",
    ".heif",
    ".jxl",
    ".psd",
    ".svg",
    ".tga",
}  # images that are not read, as is said

Log = Log


@dataclass(frozen=True)
class Layout:
    """Directories of the splits. Without one for training, all beside the others is."""

    directory: Path
    training: Path
    validation: Path | None
    test: Path | None

    @property
    def besides(self) -> tuple[str, ...]:
        """Names of the folders in `training` that are other splits."""
        if self.training != self.directory:
            return ()
        return tuple(path.name for path in (self.validation, self.test) if path)

    def name(self, split: Path) -> str:
        """The directory of a split as it is called in manifests, without what lies above."""
        return (Path(self.directory.resolve().name) / split.relative_to(self.directory)).as_posix()


def layout(directory: Path) -> Layout:
    """The splits of a directory.

    Raises DataError where there is no such directory, or a split has two folders.
    """
    check_exists(directory)
    folders = subfolders(directory)
    training, test = _split(folders, TRAINING), _split(folders, TEST)
    validation = _split(folders, (*VALIDATION, VALID) if training or test else VALIDATION)
    return Layout(directory, training or directory, validation, test)


def check_exists(directory: Path) -> None:
    """Raise DataError where there is no such directory."""
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist"
        raise DataError(f"--data {directory} {what}: name the directory of the images")


def subfolders(directory: Path) -> list[Path]:
    return sorted(
        path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def log_left_out(directory: Path, taken: Collection[Path], log: Log) -> None:
    """Log which folders and images at the top of a directory are in no split."""
    folders = [path.name for path in subfolders(directory) if path not in taken]
    images = sum(is_image(path, directory) for path in directory.iterdir())
    left_out = [*folders, *([f"{images} images"] if images else [])]
    if left_out:
        beside = ", ".join(sorted(path.name for path in taken))
        log(f"{directory}: left out beside {beside}: {', '.join(left_out)}")


@dataclass(frozen=True)
class Folder:
    """Images uint8 (n, height, width, channels), in the order of their paths, and their files.

    The classes are the names of the subfolders; there are none where images lie beside them or
    there is only one subfolder.
    """

    images: npt.NDArray[np.uint8]
    paths: tuple[Path, ...]
    subfolders: tuple[str, ...]  # of each image, "" where it is in none
    digests: tuple[str, ...]  # of the bytes of each image
    sha256: str  # of all paths and bytes

    @cached_property
    def classes(self) -> tuple[str, ...]:
        names = sorted({*self.subfolders})
        return tuple(names) if len(names) > 1 and names[0] else ()

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        return self.labels_in(self.classes)

    def labels_in(self, classes: Sequence[str]) -> npt.NDArray[np.int64] | None:
        """The index of each image's class; None where there are no classes."""
        return (
            np.array([classes.index(name) for name in self.subfolders], dtype=np.int64)
            if classes
            else None
        )

    @property
    def identified(self) -> duplicates.Identified:
        return list(zip(self.digests, self.paths, strict=True))

    def take(self, indices: Sequence[int]) -> "Folder":
        if len(indices) == len(self.paths):
            return self
        return Folder(
            self.images[indices],
            tuple(self.paths[index] for index in indices),
            tuple(self.subfolders[index] for index in indices),
            tuple(self.digests[index] for index in indices),
            self.sha256,
        )


def read(
    directory: Path, spec: InputSpec, unfit: Unfit, tell: Log, besides: Collection[str] = ()
) -> Folder:
    """Read every image below a directory, but not in the subfolders `besides`.

    Unfit is a file that cannot be read, or whose mode (grey, colour, with transparency) is not the
    model's; each is logged. `skip` leaves unfit files out, and `convert` only those that cannot be
    read. Raises DataError where there is no image, or, if `unfit` is `stop`, where one is unfit.
    """
    check_exists(directory)
    paths = list_images(directory, tell, besides)
    images = np.empty((len(paths), *spec.shape), dtype=np.uint8)

    def place(index: int) -> ImageFile:
        file = image_file.read(paths[index], spec)
        if file.pixels is not None:
            images[index] = file.pixels
        return file.without_pixels()

    files = image_file.each(place, range(len(paths)), f"reading {directory.name}", tell)
    usable = choose(directory, files, spec, unfit, tell)
    below = [path.relative_to(directory).parts for path in paths]
    every = Folder(
        images,
        tuple(paths),
        tuple(parts[0] if len(parts) > 1 else "" for parts in below),
        tuple(file.sha256 for file in files),
        digest(directory, files),
    )
    return every.take(usable)


@dataclass(frozen=True)
class FolderSplits:
    """Images to train on, those of `val` among them, and those of `test`; `sha256` of each folder."""

    training: Folder
    test: Folder | None
    classes: tuple[str, ...]
    sha256: dict[str, str]


def read_splits(directory: Path, spec: InputSpec, unfit: Unfit, log: Log) -> FolderSplits:
    """Read the splits of a directory. Copies of images to train on are left out, with a warning.

    Raises DataError as `read` does, and where an image lies in two splits, or a class has no images
    to train on.
    """
    found = layout(directory)
    homes = [home for home in (found.training, found.validation, found.test) if home]
    if found.training != directory:
        log_left_out(directory, homes, log)
    parts = {
        home: read(home, spec, unfit, log, found.besides if home == directory else ())
        for home in homes
    }
    duplicates.check_apart({found.name(home): part.identified for home, part in parts.items()})
    training = parts[found.training]
    if found.validation:
        joining = parts[found.validation]
        log(f"{found.validation}: its {len(joining.paths)} images join those to train on")
        training = _join(training, joining)
    training = training.take(duplicates.drop(training.identified, log))
    test = parts[found.test] if found.test else None
    sha256 = {found.name(home): part.sha256 for home, part in parts.items()}
    return FolderSplits(training, test, _common_classes(parts, found, log), sha256)


def list_images(directory: Path, log: Log, besides: Collection[str] = ()) -> list[Path]:
    """Images, by their names, below a directory, but not in the subfolders `besides`."""
    found = sorted(path for path in directory.rglob("*") if not _is_hidden(path, directory))
    found = [path for path in found if path.relative_to(directory).parts[0] not in besides]
    paths = [path for path in found if is_image(path, directory)]
    others = sorted({*found} - {*paths})
    for link in (path for path in others if path.is_symlink() and path.is_dir()):
        log(f"{link}: links to folders are not followed")
    if count := sum(path.is_file() for path in others):
        log(f"{directory}: skipped {count} file(s) without an image suffix")
    if not paths:
        raise _no_images(directory)
    return paths


def choose(
    directory: Path, files: Sequence[ImageFile], spec: InputSpec, unfit: Unfit, log: Log
) -> list[int]:
    """Indices of the usable files, as `image_file.choose`. Raises DataError where none is."""
    usable = image_file.choose(directory, files, unfit, log)
    if not usable:
        raise _no_images(directory)
    image_file.warn_of_depth(directory, [files[index] for index in usable], spec, log)
    return usable


def digest(directory: Path, files: Sequence[ImageFile]) -> str:
    """SHA-256 of the paths below a directory and of all bytes."""
    lines = [f"{file.path.relative_to(directory).as_posix()}\0{file.sha256}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_image(path: Path, directory: Path) -> bool:
    """Whether a file below a directory is an image by its name, and not hidden."""
    suffix = path.suffix.lower()
    known = (
        suffix in _OTHER_SUFFIXES or Image.registered_extensions().get(suffix) in imaging.FORMATS
    )
    return known and not _is_hidden(path, directory) and path.is_file()


def _is_hidden(path: Path, directory: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(directory).parts)


def _no_images(directory: Path) -> DataError:
    formats = ", ".join(imaging.FORMATS)
    return DataError(f"there are no images in {directory}; --data names a directory of {formats}")


def _split(folders: Sequence[Path], names: Collection[str]) -> Path | None:
    found = [path for path in folders if path.name.lower() in names]
    if len(found) > 1:
        raise DataError(
            f"{found[0]} and {found[1]} are one split by their names: put all into {found[0]}"
        )
    return found[0] if found else None


def _join(first: Folder, second: Folder) -> Folder:
    return Folder(
        np.concatenate([first.images, second.images]),
        first.paths + second.paths,
        first.subfolders + second.subfolders,
        first.digests + second.digests,
        first.sha256,
    )


def _common_classes(parts: dict[Path, Folder], found: Layout, log: Log) -> tuple[str, ...]:
    """The classes of the images to train on; none where other splits have images without one."""
    classes = parts[found.training].classes
    for home, part in parts.items():
        names = {*part.subfolders}
        if classes and "" in names:
            log(
                f"warning: there are images without a class in {home}: the classes of {found.training} are left out"
            )
            return ()
        if classes and (unknown := sorted(names - {*classes})):
            raise DataError(
                f"{home} holds {', '.join(unknown)}, but {found.training} does not:"
                f" name its folders after {', '.join(classes)}"
            )
    return classes
