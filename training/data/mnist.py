"""MNIST and Fashion-MNIST: IDX files, downloaded with checksums or read from a directory."""

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pooch

from bundle.manifest import compute_sha256
from training.data.splits import Split
from training.errors import DataError

FILE_PREFIXES = ("train", "t10k")  # of the training and the test split

_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class Source:
    """Source of a data set, names of its classes, and the SHA-256 of each of its files."""

    title: str
    url: str
    licence: str
    classes: tuple[str, ...]
    sha256: dict[str, str]


def _name_digests(*digests: str) -> dict[str, str]:
    return dict(zip(_FILES, digests, strict=True))


SOURCES = {
    "mnist": Source(
        title="MNIST (LeCun, Cortes and Burges)",
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        licence="CC BY-SA 3.0, as stated by redistributors",
        classes=tuple("0123456789"),
        sha256=_name_digests(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion-mnist": Source(
        title="Fashion-MNIST (Xiao, Rasul and Vollgraf 2017)",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        licence="MIT, Copyright (c) 2017 Zalando SE",
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        sha256=_name_digests(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
}


class IdxSplit(NamedTuple):
    """Images uint8 (n, height, width), the label of each if known, and the digests of the files."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8] | None
    sha256: dict[str, str]


def load_training(dataset: str, directory: Path | None) -> Split:
    """All training images of MNIST or Fashion-MNIST."""
    return load_split(dataset, "train", directory)[0]


def load_test(dataset: str, directory: Path | None) -> Split:
    """The test split of MNIST or Fashion-MNIST."""
    return load_split(dataset, "t10k", directory)[0]


def load_split(dataset: str, prefix: str, directory: Path | None) -> tuple[Split, dict[str, str]]:
    """A split, as `load` finds it, and the digests of its files."""
    images, labels, sha256 = load(dataset, prefix, directory)
    return Split(images[..., None], None if labels is None else labels.astype(np.int64)), sha256


def load(dataset: str, prefix: str, directory: Path | None) -> IdxSplit:
    """One of the two splits of a data set, by the prefix of its files: "train" or "t10k".

    `directory` holds the IDX files, or a folder of the data set's name that does. None downloads
    the files. Raises DataError if the images are missing, if the numbers of images and labels
    differ, or if a file is damaged.
    """
    digests: dict[str, str] = {}

    def read_if_found(kind: str) -> npt.NDArray[np.uint8] | None:
        file = f"{prefix}-{kind}-ubyte.gz"
        path = _download(dataset, file) if directory is None else _find(dataset, file, directory)
        if path is None:
            return None
        digests[path.name] = compute_sha256(path)
        return read(path)

    images, labels = read_if_found("images-idx3"), read_if_found("labels-idx1")
    if images is None:
        place = "" if directory is None else f" in {_home(dataset, directory)}"
        raise DataError(
            f"there is no {prefix}-images-idx3-ubyte.gz{place};"
            f" --data names the directory of the IDX files of {dataset}"
        )
    if not images.size:
        raise DataError(f"{dataset} {prefix}: the files hold no images")
    if labels is not None and len(labels) != len(images):
        raise DataError(f"{dataset} {prefix}: {len(images)} images, but {len(labels)} labels")
    return IdxSplit(images, labels, digests)


def read(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Format: two zero bytes, the type, the number of dimensions, big-endian sizes, data
    (yann.lecun.com/exdb/mnist). Raises DataError if the file has another format, is incomplete, or
    is too long.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch it again") from error
    if len(data) < 4 or data[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it must begin with two zero bytes")
    if data[2] != _UNSIGNED_BYTE:
        raise DataError(
            f"{path} holds elements of type {data[2]:#04x};"
            f" only unsigned bytes ({_UNSIGNED_BYTE:#04x}) are supported"
        )
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise DataError(f"{path} is incomplete: it ends within its header; fetch it again")
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    expected = header + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise DataError(
            f"{path} has {len(data)} bytes, but its header promises {expected}; fetch it again"
        )
    # A copy, because torch warns of arrays that are not writable.
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape).copy()


def _home(dataset: str, directory: Path) -> Path:
    return directory / dataset if (directory / dataset).is_dir() else directory


def _find(dataset: str, file: str, directory: Path) -> Path | None:
    home = _home(dataset, directory)
    paths = (home / file, home / file.removesuffix(".gz"))
    return next((path for path in paths if path.is_file()), None)


def _download(dataset: str, file: str) -> Path:
    source = SOURCES[dataset]
    url, digest = source.url + file, f"sha256:{source.sha256[file]}"
    cache = pooch.os_cache("autoencoder-service") / dataset
    try:
        return Path(pooch.retrieve(url, digest, file, cache, progressbar=True))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{url} is unavailable: {error}; get it elsewhere and pass --data DIR"
        ) from error
