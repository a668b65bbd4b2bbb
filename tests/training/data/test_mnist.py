import functools
import gzip
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest

from bundle.manifest import compute_sha256
from tests.conftest import DATA
from tests.idx import write_idx
from training.data import mnist
from training.errors import DataError


def test_idx_files_are_read_gzipped_or_not(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    write_idx(tmp_path / "a.gz", array)
    (tmp_path / "a").write_bytes(gzip.decompress((tmp_path / "a.gz").read_bytes()))
    for name in ("a", "a.gz"):
        np.testing.assert_array_equal(mnist.read(tmp_path / name), array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not an IDX file"),
        (b"\x01\x00\x08\x01", "is not an IDX file"),
        (b"\x00\x00\x0d\x01" + bytes(4), "elements of type 0x0d"),
        (b"\x00\x00\x08\x03\x00\x00", "is incomplete: it ends within its header"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abcd", "has 12 bytes, but its header promises 13"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x03abcd", "has 12 bytes, but its header promises 11"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "promises 79228162"),
    ],
)
def test_a_broken_file_is_reported(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        mnist.read(tmp_path / "a")


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-9], lambda raw: raw[:50] + b"\0" + raw[51:], lambda raw: b"x" + raw],
)
def test_damaged_gzip_is_reported(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    raw = (DATA / "mnist/t10k-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / "a.gz").write_bytes(damage(raw))
    with pytest.raises(DataError, match="cannot be read"):
        mnist.read(tmp_path / "a.gz")


@pytest.fixture
def server() -> Iterator[str]:
    """A mirror of the test images on this machine."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=DATA / "mnist")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as mirror:
        thread = threading.Thread(target=mirror.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{mirror.server_address[1]}/"
        mirror.shutdown()
        thread.join()


@pytest.fixture
def source(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mnist.Source:
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    digests = {path.name: compute_sha256(path) for path in (DATA / "mnist").iterdir()}
    mirrored = mnist.Source("MNIST", server, "any", tuple("0123456789"), digests)
    monkeypatch.setitem(mnist.SOURCES, "mnist", mirrored)
    return mirrored


@pytest.mark.usefixtures("source")
def test_without_a_directory_the_files_are_downloaded_once(tmp_path: Path) -> None:
    for _ in range(2):
        assert len(mnist.load("mnist", "t10k", None).images) == 128
    cached = sorted(path.name for path in (tmp_path / "autoencoder-service" / "mnist").iterdir())
    assert cached == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


def test_a_download_with_another_checksum_is_refused(source: mnist.Source) -> None:
    source.sha256["t10k-images-idx3-ubyte.gz"] = "0" * 64
    with pytest.raises(DataError, match="pass --data DIR"):
        mnist.load("mnist", "t10k", None)


def test_a_failed_download_names_the_fix(source: mnist.Source) -> None:
    source.sha256["missing.gz"] = "0" * 64
    with pytest.raises(DataError, match=r"missing\.gz is unavailable: .*pass --data DIR"):
        mnist._download("mnist", "missing.gz")


def test_files_without_images_are_reported(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((0, 28, 28), np.uint8))
    with pytest.raises(DataError, match="mnist train: the files hold no images"):
        mnist.load("mnist", "train", tmp_path)
