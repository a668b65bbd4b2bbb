from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six RGB photographs in two subfolders, of several formats and sizes, and another file."""
    directory = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for index, name in enumerate(
        ("a/0.png", "a/1.jpg", "a/2.bmp", "b/3.webp", "b/4.tiff", "b/5.PNG")
    ):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (10 + index, 20, 3), dtype=np.uint8)).save(path)
    (directory / "labels.csv").write_text("not an image")
    (directory / ".hidden.png").write_bytes(b"")
    return directory
