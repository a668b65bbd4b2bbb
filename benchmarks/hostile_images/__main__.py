"""Files of at most 1 MB that are made to be slow to decode, and the seconds that each takes.

    python -m benchmarks.hostile_images

Each file is decoded to the size of a model, and to its own size as an overlay needs it. A file that
is refused counts until it is refused.
"""

import math
import re
import time
from collections.abc import Iterator

from benchmarks.hostile_images import FIXED, SIZED
from benchmarks.hostile_images.registry import MAX_BYTES, SIDE_PIXELS
from bundle import imaging
from bundle.errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from bundle.manifest import InputSpec

MAX_PIXELS = 32_000_000  # the default of AE_MAX_IMAGE_PIXELS
GOAL_SECONDS = 0.5
SPEC = InputSpec(height=256, width=256, channels=3)


def make_all() -> Iterator[tuple[str, bytes]]:
    """Make each file, at most `MAX_BYTES` long; those of many pixels as large as are accepted."""
    for name, make in FIXED.items():
        yield name, make()
    for name, make_sized in SIZED.items():
        side = SIDE_PIXELS
        yield name, (data := make_sized(side, side))
        while refusal := find_refusal(data):
            named = re.search(r"at most (\d+) pixels", refusal)
            side = min(math.isqrt(int(named[1])) if named else side, side) * 99 // 100
            data = make_sized(side, side)
        yield f"{name}, {side}x{side}", data


def find_refusal(data: bytes) -> str:
    """Return the reason if a file is refused before its pixels are decoded."""
    try:
        with imaging.open_image(data, MAX_PIXELS):
            return ""
    except (ImageTooLarge, InvalidImage, UnsupportedFormat) as error:
        return str(error)


def measure(data: bytes) -> tuple[float, str]:
    """Return the most seconds that decoding takes, and the reason if the file is refused."""
    slowest, refused = 0.0, ""
    for decode in (imaging.decode, imaging.decode_original):
        began = time.perf_counter()
        try:
            decode(data, SPEC, MAX_PIXELS)
        except (ImageTooLarge, InvalidImage, UnsupportedFormat) as error:
            refused = str(error)
        slowest = max(slowest, time.perf_counter() - began)
    return slowest, refused


def main() -> None:
    """Print a line for each file."""
    count = missed = 0
    for name, data in make_all():
        assert len(data) <= MAX_BYTES, name
        seconds, refused = measure(data)
        count += 1
        missed += seconds >= GOAL_SECONDS
        print(f"{seconds:6.2f} s  {len(data):9,} bytes  {name}: {refused[:90] or 'decoded'}")
    print(f"{count} files, {missed} take {GOAL_SECONDS} s or more")


if __name__ == "__main__":
    main()
