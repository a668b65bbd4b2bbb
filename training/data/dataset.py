"""What is trained on: MNIST, Fashion-MNIST, a folder of images or photographs of good parts; and how it is parted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from bundle.manifest import (
    InputSpec,
    TrainingData,
)
from bundle.tensors import Images
from training.config import Config
from training.data import image_folder, mnist
from training.data.mnist import PARTS, load_part, load_test
from training.data.splits import Split, TrainingSplits
from training.errors import DataError
from training.progress import Log

FEWEST_TESTED = 2


class DataConfig(Config):
    dataset: Literal["mnist", "fashion-mnist", "folder", "photographs"]
    calibration: PositiveInt = 5000  # training images held out for the calibration scores
    validation: int = Field(1000, ge=2)  # training images held out to watch the training
    test: int = Field(
        1000, ge=2
    )  # images held out to test with, of a folder that has none in `test`
    outliers: Literal["mnist", "fashion-mnist"] | None = (
        None  # what the anomaly score is tested against
    )
    title: str | None = None  # of a folder's or photographs' data, for the card, as the next two
    source: str | None = None
    licence: str | None = None
    only: NonNegativeInt | None = (
        None  # the one class that is normal; test images of the others are the outliers
    )
    binarise: bool = (
        False  # dynamic binarisation, of what the network sees and of what it is asked for
    )
    unfit: Literal["stop", "skip", "convert"] = (
        "stop"  # at files of a folder that are unreadable or of another mode
    )

    @property
    def own_images(self) -> bool:
        """Whether the images are the user's, in a folder."""
        return self.dataset in ("folder", "photographs")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        own, name = self.own_images, self.dataset
        if not own and (self.title or self.source or self.licence):
            raise ValueError(f"data.title, source and licence of {name} are known")
        held_out = self.test != type(self).model_fields["test"].default
        if not own and (self.unfit != "stop" or held_out):
            raise ValueError(f"data.unfit and test are for folders and photographs, not for {name}")
        if own and self.only is not None:
            raise ValueError(
                "data.only is of mnist and fashion-mnist: of your own images, name a folder of that class"
            )
        if self.outliers == name:
            raise ValueError("data.outliers must be another data set than data.dataset")
        return self


@dataclass(frozen=True)
class Outliers:
    """Anomalous images that the anomaly score is tested against; `labels` of the images count in `kinds`."""

    title: str
    images: Split
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """All images to train on and to test on, the names of their classes, and the digests of the files."""

    training: Split
    test: Split
    classes: tuple[str, ...]
    sha256: dict[
        str, str
    ]  # by the file's or the folder's name, which may change: the same digests are the same data
    outliers: Outliers | None = None


@dataclass(frozen=True)
class RunImages:
    """All images of a run."""

    dataset: Dataset
    splits: TrainingSplits
    outliers: Outliers | None


def load(
    config: DataConfig, spec: InputSpec, seed: int, directory: Path | None, tell: Log
) -> Dataset:
    """The images of a recipe. Raises DataError where a file is missing, damaged, or not of the recipe's size."""
    if directory is not None:
        image_folder.check_exists(directory)
    if config.dataset == "folder":
        return _load_folder(config, spec, seed, directory, tell)
    (training, test), digests = zip(
        *(load_part(config.dataset, part, directory) for part in PARTS), strict=True
    )
    for part in (training, test):
        check_fits(part.images, spec)
    classes = mnist.SOURCES[config.dataset].classes
    if training.labels is None or test.labels is None:
        if config.only is not None:
            raise DataError(
                f"data.only is {config.only}, but there are no labels beside the images of {config.dataset}"
            )
        return Dataset(Split(training.images), Split(test.images), (), digests[0] | digests[1])
    if max(training.labels.max(), test.labels.max()) >= len(classes):
        raise DataError(
            f"a label is above {len(classes) - 1}, the last of {config.dataset}: are these its files?"
        )
    whole = Dataset(training, test, classes, digests[0] | digests[1])
    return whole if config.only is None else _one_class(whole, config.only)


def described(config: DataConfig, sha256: dict[str, str], counts: dict[str, int]) -> TrainingData:
    """Name, source and licence of the data, for the manifest; files that are not the published ones are unverified."""
    source = mnist.SOURCES.get(config.dataset)
    if source and all(source.sha256.get(name) == digest for name, digest in sha256.items()):
        return TrainingData(
            name=source.title,
            source=source.url,
            licence=source.licence,
            images=counts,
            sha256=sha256,
        )
    own = config.title or f"a folder, {', '.join(sha256)}"
    return TrainingData(
        name=f"unverified files of {source.title}" if source else own,
        source=config.source or "unknown",
        licence=config.licence or "unknown",
        images=counts,
        sha256=sha256,
    )


def load_outliers(dataset: str, directory: Path | None) -> Outliers | None:
    """The test split of another data set; None where `directory` has no folder of that name."""
    if directory is None or (directory / dataset).is_dir():
        return Outliers(dataset, load_test(dataset, directory))
    return None


def outliers_of(
    config: DataConfig, dataset: Dataset, spec: InputSpec, directory: Path | None, log: Log
) -> Outliers | None:
    """The outliers that a recipe names, else its data set's; None, and a line in the log, where they are missing."""
    if not config.outliers:
        return dataset.outliers
    outliers = load_outliers(config.outliers, directory)
    if outliers is None:
        log(
            f"there is no folder {config.outliers} in {directory}: the AUROC against it is left out"
        )
    else:
        check_fits(outliers.images.images, spec)
    return outliers


def _load_folder(
    config: DataConfig, spec: InputSpec, seed: int, directory: Path | None, tell: Log
) -> Dataset:
    if directory is None:
        raise DataError("data.dataset is folder: --data names the directory of the images")
    found = image_folder.read_splits(directory, spec, config.unfit, tell)
    training = Split(found.training.images, found.training.labels_in(found.classes))
    if found.test:
        test = Split(found.test.images, found.test.labels_in(found.classes))
        if len(test) < FEWEST_TESTED:
            home = found.test.paths[0].parent
            raise DataError(f"{home} holds one image: take at least {FEWEST_TESTED} to test with")
        return Dataset(training, test, found.classes, found.sha256)
    if len(training) <= config.test:
        raise DataError(
            f"{len(training)} images are too few: {config.test} are held out (data.test)"
        )
    held_out, fitted = np.split(
        np.random.default_rng(seed).permutation(len(training)), [config.test]
    )
    return Dataset(training.take(fitted), training.take(held_out), found.classes, found.sha256)


def _one_class(whole: Dataset, only: int) -> Dataset:
    """One class to train on and to test on; the test images of the others are the outliers."""
    if only >= len(whole.classes):
        raise DataError(f"data.only is {only}, but the last class is {len(whole.classes) - 1}")
    assert whole.training.labels is not None
    assert whole.test.labels is not None
    training, normal = (
        np.flatnonzero(split.labels == only) for split in (whole.training, whole.test)
    )
    strange = whole.test.take(np.flatnonzero(whole.test.labels != only))
    return Dataset(
        Split(whole.training.take(training).images),
        Split(whole.test.take(normal).images),
        (),
        whole.sha256,
        Outliers("other classes", strange, whole.classes),
    )


def check_fits(images: Images, spec: InputSpec) -> None:
    """Raise DataError where the images are not of the recipe's size."""
    if images.shape[1:] != spec.shape:
        raise DataError(
            f"the images are {images.shape[1:]}, but the recipe's input is {spec.shape}"
        )
