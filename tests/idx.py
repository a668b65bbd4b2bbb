import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt


def write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """Write a gzipped IDX file; the same array always gives the same bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
