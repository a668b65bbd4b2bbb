"""Kill publications, fill the disk, and take away the right to write; then look for losses.

    python -m benchmarks.faults

Runs as root of its own namespace (`unshare`, Linux), where it mounts a small disk. Printed is what
each fault left.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bundle.imaging import encode_png
from bundle.manifest import MANIFEST, ModelManifest
from training.pipeline import publish
from training.pipeline.destinations import ModelsDirectory

MODEL, IMAGES = "mnist-undercomplete", 60
KILLS = 50
DISK_BYTES = 2**17  # of the small disk
PORT = 8242
STAGING = ".publishing-*"
MODULE = [sys.executable, "-m", "benchmarks.faults"]
NAMESPACE_OPTION = "--inside"


def main() -> None:
    """Run all faults, in a namespace of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(NAMESPACE_OPTION, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--publish", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish_again_and_again(options.publish)
    if not options.inside:
        sys.exit(
            subprocess.run(["unshare", "-rm", *MODULE, NAMESPACE_OPTION], check=False).returncode
        )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kill_publications(directory / "killed")
        images = write_images(directory / "images")
        for fill in (fill_while_scoring, fill_while_publishing):
            with mount(directory / "disk") as disk:
                fill(disk, images)
    serve_without_writing()


def copy_model(models: Path) -> Path:
    """Copy the model to a directory, as its only version; returns the bundle."""
    versions = (path for path in Path("models", MODEL).iterdir() if path.name.isdecimal())
    newest = max(versions, key=lambda path: int(path.name))
    return Path(shutil.copytree(newest, models / MODEL / newest.name))


def publish_again_and_again(bundle: Path) -> None:
    """Publish copies of a bundle until killed."""
    manifest = ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())
    models = ModelsDirectory(bundle.parents[1])
    while True:
        with models.open_staging(manifest.name) as staging:
            for file in manifest.files:
                shutil.copy(bundle / file, staging)
            publish.publish(models, staging, manifest)


def kill_publications(directory: Path) -> None:
    """Kill publications at random moments, and load all that is left."""
    generator, left = random.Random(0), Counter[str]()
    for index in range(KILLS):
        models = directory / str(index)
        bundle = copy_model(models)
        publishing = subprocess.Popen([*MODULE, "--publish", str(bundle)])
        while publishing.poll() is None and not list(bundle.parent.glob(STAGING)):
            pass
        time.sleep(generator.uniform(0, 0.03))
        publishing.kill()
        publishing.wait()
        left["killed"] += 1
        left["unfinished"] += len(list(bundle.parent.glob(STAGING)))
        left["published"] += len([*bundle.parent.glob("[0-9]*")]) - 1
        left["repositories that load"] += run("service", "check", "--models", models)[0] == 0
        shutil.rmtree(models)
    print(f"publications by outcome: {dict(left)}")


@contextmanager
def mount(directory: Path) -> Iterator[Path]:
    """A disk in memory, of DISK_BYTES."""
    directory.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "disk", directory], check=True
    )
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def enlarge(directory: Path) -> None:
    """Give a mounted disk much more space."""
    subprocess.run(["mount", "-o", "remount,size=1G", directory], check=True)


def write_images(directory: Path) -> Path:
    """Write random images of the size of digits."""
    directory.mkdir()
    for index in range(IMAGES):
        pixels = np.random.default_rng(index).integers(0, 256, (28, 28, 1), dtype=np.uint8)
        (directory / f"{index}.png").write_bytes(encode_png(pixels))
    return directory


def fill_while_scoring(disk: Path, images: Path) -> None:
    """Score to a disk that becomes full, then again with more space, and compare the tables."""
    arguments: list[str | Path] = [
        "service",
        "score",
        images,
        "--model",
        MODEL,
        "--device",
        "cpu",
        "--output",
    ]
    expected = images.parent / "scores.csv"
    run(*arguments, expected, "--heatmaps", images.parent / "heatmaps")
    pictures: list[str | Path] = ["--heatmaps", disk / "heatmaps"]
    status, message = run(*arguments, disk / "scores.csv", *pictures)
    print(f"scoring to a full disk: exit code {status}, {message}")
    enlarge(disk)
    status, _ = run(*arguments, disk / "scores.csv", *pictures)
    table = (disk / "scores.csv").read_text().replace(f"{disk}/", f"{images.parent}/")
    equal = table == expected.read_text()
    print(f"  repeated with more space: exit code {status}, equal tables: {equal}")


def fill_while_publishing(disk: Path, images: Path) -> None:
    """Calibrate a model on a disk that becomes full, then again with more space."""
    enlarge(disk)
    bundle = copy_model(disk)
    used = shutil.disk_usage(disk).used
    subprocess.run(["mount", "-o", f"remount,size={used + DISK_BYTES}", disk], check=True)
    arguments: list[str | Path] = [
        "training",
        "calibrate",
        MODEL,
        "--data",
        images,
        "--models",
        disk,
    ]
    status, message = run(*arguments)
    print(f"publishing to a full disk: exit code {status}, {message}")
    print(f"  left: {sorted(path.name for path in bundle.parent.iterdir())}")
    enlarge(disk)
    status, _ = run(*arguments)
    left = sorted(path.name for path in bundle.parent.iterdir())
    loads = run("service", "check", "--models", disk)[1]
    print(f"  repeated with more space: exit code {status}, left: {left}, {loads}")


def serve_without_writing() -> None:
    """Serve with a file system that cannot be written to."""
    subprocess.run(["mount", "-o", "remount,bind,ro", "/"], check=True)
    command = [sys.executable, "-m", "service", "serve", "--device", "cpu", "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    ready = server.stdout.readline()
    image = encode_png(np.zeros((28, 28, 1), np.uint8))
    headers = {"Content-Type": "image/png"}
    url = f"{ready.split()[1]}/v1/models/{MODEL}/encode"
    request = urllib.request.Request(url, image, headers)
    with urllib.request.urlopen(request) as response:
        print(f"serving without a disk to write to: {response.status}", end=", ")
    server.send_signal(signal.SIGTERM)
    print(f"exit code {server.wait()}")


def run(*arguments: str | Path) -> tuple[int, str]:
    """Run a module with arguments. Returns its exit code and the last line that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    main()
