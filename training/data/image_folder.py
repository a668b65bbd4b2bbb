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
from training.data.image_file import ImageFile, InvalidFilePolicy
from training.errors import DataError
from training.progress import Log

_TRAINING_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing")
_VALIDATION_NAMES = ("val", "validation")
# Beside `train` or `test` it is a split; elsewhere it may be a class, beside `invalid`.
_AMBIGUOUS_VALIDATION_NAME = "valid"
# Suffixes of unsupported images, which are reported as such.
_UNSUPPORTED_SUFFIXES = {".avif", ".heic", ".heif", ".jxl", ".psd", ".svg", ".tga"}


@dataclass(frozen=True)
class Layout:
    """Directories of the splits.

    Without a directory for training, everything outside the other splits is for training.
    """

    directory: Path
    training: Path
    validation: Path | None
    test: Path | None

    @property
    def other_splits(self) -> tuple[str, ...]:
        """Names of the folders in `training` that are other splits."""
        if self.training != self.directory:
            return ()
        return tuple(path.name for path in (self.validation, self.test) if path)

    def name(self, split: Path) -> str:
        """The directory of a split as manifests name it: without the folders above the data."""
        return (Path(self.directory.resolve().name) / split.relative_to(self.directory)).as_posix()


def find_layout(directory: Path) -> Layout:
    """Find the splits of a directory.

    Raises DataError if there is no such directory, or if a split has two folders.
    """
    check_exists(directory)
    folders = list_subfolders(directory)
    training, test = _find_split(folders, _TRAINING_NAMES), _find_split(folders, _TEST_NAMES)
    ambiguous = (_AMBIGUOUS_VALIDATION_NAME,) if training or test else ()
    validation = _find_split(folders, (*_VALIDATION_NAMES, *ambiguous))
    return Layout(directory, training or directory, validation, test)


def check_exists(directory: Path) -> None:
    """Raise DataError if there is no such directory."""
    if not directory.is_dir():
        problem = "is not a directory" if directory.exists() else "does not exist"
        raise DataError(f"--data {directory} {problem}: name the directory of the images")


def list_subfolders(directory: Path) -> list[Path]:
    """The folders in a directory that are not hidden, in order."""
    return sorted(
        path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def log_skipped(directory: Path, taken: Collection[Path], log: Log) -> None:
    """Log the folders and images at the top of a directory that are in no split."""
    folders = [path.name for path in list_subfolders(directory) if path not in taken]
    images = sum(is_image(path, directory) for path in directory.iterdir())
    skipped = [*folders, *([f"{images} images"] if images else [])]
    if skipped:
        beside = ", ".join(sorted(path.name for path in taken))
        log(f"{directory}: skipped beside {beside}: {', '.join(skipped)}")


@dataclass(frozen=True)
class Folder:
    """Images uint8 (n, height, width, channels), in the order of their paths, and their files.

    The classes are the names of the subfolders. There are none if images lie beside the subfolders,
    or if there is only one subfolder.
    """

    images: npt.NDArray[np.uint8]
    paths: tuple[Path, ...]
    subfolders: tuple[str, ...]  # of each image, "" if it is in none
    digests: tuple[str, ...]  # of the bytes of each image
    sha256: str  # of all paths and bytes

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order; empty if the images have none."""
        names = sorted({*self.subfolders})
        return tuple(names) if len(names) > 1 and names[0] else ()

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The index of each image's class; None without classes."""
        return self.labels_in(self.classes)

    def labels_in(self, classes: Sequence[str]) -> npt.NDArray[np.int64] | None:
        """The index of each image's class in `classes`; None if these are empty."""
        if not classes:
            return None
        return np.array([classes.index(name) for name in self.subfolders], dtype=np.int64)

    @property
    def hashed_paths(self) -> duplicates.HashedPaths:
        """The digest and the path of each image."""
        return list(zip(self.digests, self.paths, strict=True))

    def take(self, indices: Sequence[int]) -> "Folder":
        """The images with these indices, under the digest of the whole folder."""
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
    directory: Path,
    spec: InputSpec,
    policy: InvalidFilePolicy,
    log: Log,
    excluded: Collection[str] = (),
) -> Folder:
    """Read every image below a directory, but not in the subfolders `excluded`.

    A file is invalid if it is unreadable, or if its mode (grey, colour, with transparency) is not
    the model's. Invalid files are logged. `skip` excludes them, and `convert` only the unreadable
    ones. Raises DataError if there is no image, or if the policy is `stop` and a file is invalid.
    """
    check_exists(directory)
    paths = list_images(directory, log, excluded)
    images = np.empty((len(paths), *spec.shape), dtype=np.uint8)
    files = image_file.map_with_progress(
        lambda index: _read_into(images[index], paths[index], spec),
        range(len(paths)),
        f"reading {directory.name}",
        log,
    )
    usable = choose(directory, files, spec, policy, log)
    digests = tuple(file.sha256 for file in files)
    subfolders = _infer_subfolders(directory, paths)
    return Folder(images, tuple(paths), subfolders, digests, digest(directory, files)).take(usable)


@dataclass(frozen=True)
class FolderSplits:
    """Splits of a folder: training includes `val`; `sha256` has the digest of each folder."""

    training: Folder
    test: Folder | None
    classes: tuple[str, ...]
    sha256: dict[str, str]


def read_splits(
    directory: Path, spec: InputSpec, policy: InvalidFilePolicy, log: Log
) -> FolderSplits:
    """Read the splits of a directory; copies of training images are skipped, with a warning.

    Raises DataError as `read` does, and if an image lies in two splits, or a class has no training
    images.
    """
    layout = find_layout(directory)
    homes = [home for home in (layout.training, layout.validation, layout.test) if home]
    if layout.training != directory:
        log_skipped(directory, homes, log)
    folders = {
        home: read(home, spec, policy, log, layout.other_splits if home == directory else ())
        for home in homes
    }
    duplicates.check_disjoint(
        {layout.name(home): folder.hashed_paths for home, folder in folders.items()}
    )
    training = folders[layout.training]
    if layout.validation:
        joining = folders[layout.validation]
        log(f"{layout.validation}: added its {len(joining.paths)} images to the training images")
        training = _join(training, joining)
    training = training.take(duplicates.find_originals(training.hashed_paths, log))
    test = folders[layout.test] if layout.test else None
    sha256 = {layout.name(home): folder.sha256 for home, folder in folders.items()}
    return FolderSplits(training, test, _find_common_classes(folders, layout, log), sha256)


def list_images(directory: Path, log: Log, excluded: Collection[str] = ()) -> list[Path]:
    """Scan a directory for images, by their suffixes, but not in the subfolders `excluded`."""
    visible = sorted(path for path in directory.rglob("*") if not _is_hidden(path, directory))
    visible = [path for path in visible if path.relative_to(directory).parts[0] not in excluded]
    paths = [path for path in visible if is_image(path, directory)]
    others = sorted({*visible} - {*paths})
    for link in (path for path in others if path.is_symlink() and path.is_dir()):
        log(f"{link}: skipped, because it is a link to a folder")
    if count := sum(path.is_file() for path in others):
        log(f"{directory}: skipped {count} file(s) without an image suffix")
    if not paths:
        raise _no_images(directory)
    return paths


def choose(
    directory: Path,
    files: Sequence[ImageFile],
    spec: InputSpec,
    policy: InvalidFilePolicy,
    log: Log,
) -> list[int]:
    """Indices of the usable files, as `image_file.choose`. Raises DataError if there are none."""
    usable = image_file.choose(directory, files, policy, log)
    if not usable:
        raise _no_images(directory)
    image_file.warn_of_depth(directory, [files[index] for index in usable], spec, log)
    return usable


def digest(directory: Path, files: Sequence[ImageFile]) -> str:
    """SHA-256 of the paths below a directory and of all bytes."""
    lines = [f"{file.path.relative_to(directory).as_posix()}\0{file.sha256}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_image(path: Path, directory: Path) -> bool:
    """True if a file below a directory is an image by its suffix, and not hidden."""
    suffix = path.suffix.lower()
    supported = Image.registered_extensions().get(suffix) in imaging.FORMATS
    known = supported or suffix in _UNSUPPORTED_SUFFIXES
    return known and not _is_hidden(path, directory) and path.is_file()


def _read_into(pixels: npt.NDArray[np.uint8], path: Path, spec: InputSpec) -> ImageFile:
    """Read one file into an array (height, width, channels); an unreadable file leaves it as is."""
    file = image_file.read(path, spec)
    if file.pixels is not None:
        pixels[:] = file.pixels
    return file.without_pixels()


def _infer_subfolders(directory: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    """The subfolder of each image, which is its class; "" if it is in none."""
    below = [path.relative_to(directory).parts for path in paths]
    return tuple(parts[0] if len(parts) > 1 else "" for parts in below)


def _is_hidden(path: Path, directory: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(directory).parts)


def _no_images(directory: Path) -> DataError:
    formats = ", ".join(imaging.FORMATS)
    return DataError(f"there are no images in {directory}; --data names a directory of {formats}")


def _find_split(folders: Sequence[Path], names: Collection[str]) -> Path | None:
    matching = [path for path in folders if path.name.lower() in names]
    if len(matching) > 1:
        raise DataError(
            f"{matching[0]} and {matching[1]} are the same split: put all images into {matching[0]}"
        )
    return matching[0] if matching else None


def _join(first: Folder, second: Folder) -> Folder:
    return Folder(
        np.concatenate([first.images, second.images]),
        first.paths + second.paths,
        first.subfolders + second.subfolders,
        first.digests + second.digests,
        first.sha256,
    )


def _find_common_classes(folders: dict[Path, Folder], layout: Layout, log: Log) -> tuple[str, ...]:
    """The classes of the training images; none if other splits have images without a class."""
    classes = folders[layout.training].classes
    for home, folder in folders.items():
        names = {*folder.subfolders}
        if classes and "" in names:
            log(
                f"warning: there are images without a class in {home}:"
                f" the classes of {layout.training} are ignored"
            )
            return ()
        if classes and (unknown := sorted(names - {*classes})):
            raise DataError(
                f"{home} holds {', '.join(unknown)}, but {layout.training} does not:"
                f" name its folders after {', '.join(classes)}"
            )
    return classes
