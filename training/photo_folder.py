"""Photographs of good parts to train on and of defective ones to test with, in the layout of MVTec AD.

`train/good`, `train` or `good` holds good parts, or else the directory itself does. Where they are there,
`test/<label>` holds others, those in `good` normal, and `ground_truth/<label>` their masks, `<stem>_mask.<ext>` or
`<stem>.<ext>`: not 0 is defective.
Layout: Bergmann et al. 2019, "MVTec AD", section 3.
"""

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from service.manifest import InputSpec
from training import folder
from training.errors import DataError
from training.folder import Tell

GOOD = "good"
TEST, MASKS = "test", "ground_truth"


@dataclass(frozen=True)
class Photographs:
    """Images uint8 (n, height, width, channels) of good parts, and those to test with, if there are any.

    Of the strange ones, `labels` count in `kinds`; `masks` (n, height, width) are true in defects, and `masked` (n,)
    says which images have one. `sha256` has the digest of each folder that was read.
    """

    training: npt.NDArray[np.uint8]
    normal: npt.NDArray[np.uint8] | None
    strange: npt.NDArray[np.uint8] | None
    labels: npt.NDArray[np.int64]
    kinds: tuple[str, ...]
    masks: npt.NDArray[np.bool_]
    masked: npt.NDArray[np.bool_]
    sha256: dict[str, str]


def read(directory: Path, spec: InputSpec, unfit: Literal["stop", "skip", "convert"], tell: Tell) -> Photographs:
    """Read all photographs; what is unfit is told of, or an error, as in `folder.read`.

    Raises DataError where there are none to train on, where it cannot be told which are good, or a mask cannot be read.
    """
    home = _home(directory)
    training = folder.read(home, spec, unfit, tell, besides=(TEST, MASKS) if home == directory else ())
    sha256 = {_name(directory, home): training.sha256}
    tested = directory / TEST
    if not tested.is_dir():
        none = np.empty(0)
        return Photographs(
            training.images, None, None, none.astype(int), (), none.astype(bool), none.astype(bool), sha256
        )
    test = folder.read(tested, spec, unfit, tell)
    sha256[_name(directory, tested)] = test.sha256
    if bare := next((path for path in test.paths if len(path.parts) == 1), None):
        raise DataError(
            f"{tested / bare} has no label: put it into {tested / GOOD}, or a folder named after its defect"
        )
    labels = [path.parts[0] for path in test.paths]
    good = np.array([label == GOOD for label in labels])
    kinds = tuple(sorted({*labels} - {GOOD}))
    strange = [path for path, is_good in zip(test.paths, good, strict=True) if not is_good]
    masks = [_mask(directory / MASKS, path, spec) for path in strange]
    for path, mask in zip(strange, masks, strict=True):
        if mask is None and (directory / MASKS).is_dir():
            tell(f"{tested / path}: no defect is marked; it counts by its score alone")
    empty = np.zeros(spec.shape[:2], dtype=bool)
    return Photographs(
        training.images,
        test.images[good] if good.any() else None,
        test.images[~good] if strange else None,
        np.array([kinds.index(path.parts[0]) for path in strange], dtype=np.int64),
        kinds,
        np.array([empty if mask is None else mask for mask in masks], dtype=bool).reshape(-1, *spec.shape[:2]),
        np.array([mask is not None for mask in masks], dtype=bool),
        sha256,
    )


def _home(directory: Path) -> Path:
    """Where the good parts are."""
    train = directory / "train"
    labels = sorted(path.name for path in train.glob("[!.]*") if path.is_dir())
    if labels and GOOD not in labels:
        raise DataError(f"{train} holds {', '.join(labels)}: put the good ones into {train / GOOD}")
    return next((path for path in (train / GOOD, train, directory / GOOD) if path.is_dir()), directory)


def _name(directory: Path, part: Path) -> str:
    return (Path(directory.resolve().name) / part.relative_to(directory)).as_posix()


def _mask(home: Path, photograph: Path, spec: InputSpec) -> npt.NDArray[np.bool_] | None:
    """True where there is a defect, (height, width); None where the photograph has no mask, or nothing in it."""
    place = home / photograph.parent
    named = [
        path
        for stem in (f"{photograph.stem}_mask", photograph.stem)
        for path in sorted(place.glob(f"{glob.escape(stem)}.*"))
        if folder.is_image(path, home)
    ]
    if not named:
        return None
    try:
        with Image.open(named[0]) as mask:
            plain = mask.mode in ("1", "L", "F") or mask.mode.startswith("I")
            marks = np.asarray(mask if plain else mask.convert("RGB"))
        # Only 0 is normal, whatever numbers or colours mark the defects.
        defect = Image.fromarray((marks.reshape(*marks.shape[:2], -1) != 0).any(axis=2).astype(np.uint8) * 255)
        reduced = np.asarray(defect.resize((spec.width, spec.height), Image.Resampling.BOX))
        # Half of a pixel is enough; of thin defects, half of as much as any pixel has.
        return reduced >= max(1, reduced.max() / 2) if reduced.any() else None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"the mask {named[0]} cannot be read: {error}; mend or remove it") from error
