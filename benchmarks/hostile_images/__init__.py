"""Files that are made to be slow to decode: of a fixed size, and of many pixels."""

from benchmarks.hostile_images import jpeg, others, png, tiff  # noqa: F401 - they register files
from benchmarks.hostile_images.registry import FIXED, SIZED

__all__ = ["FIXED", "SIZED"]
