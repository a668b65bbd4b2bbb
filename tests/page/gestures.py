"""Gestures of a user on the page, and parts of the page by their accessible names."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.conftest import DATA
from training.data import mnist

COOKIES = DATA / "cookies" / "test"
GOOD = sorted((COOKIES / "good").glob("*.jpg"))
CRACKED = sorted(COOKIES.glob("cracked*/*.jpg"))
DIGITS = mnist.read(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")

DROP = """
([files]) => {
  const transfer = new DataTransfer();
  for (const { name, type, content } of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  return transfer;
}
"""
COPY = """
async (content) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const blob = new Blob([bytes], { type: "image/png" });
  await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
}
"""


def encode(pixels: np.ndarray, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def write_digits(directory: Path, count: int) -> list[Path]:
    """Write the first test digits as PNG files."""
    paths = [directory / f"digit-{index}.png" for index in range(count)]
    for path, digit in zip(paths, DIGITS, strict=False):
        path.write_bytes(encode(digit))
    return paths


def settle(page: Page) -> None:
    """Wait until the page has rendered, and then until its effects have run."""
    expect(page.get_by_label("Drop images here")).to_be_attached()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def drop(page: Page, *files: tuple[str, str, bytes]) -> None:
    """Drop files, (name, media type, content), anywhere on the page."""
    described = [
        {"name": name, "type": media_type, "content": base64.b64encode(content).decode()}
        for name, media_type, content in files
    ]
    settle(page)
    transfer = page.evaluate_handle(DROP, [described])
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("body", event, {"dataTransfer": transfer})


def drop_paths(page: Page, *paths: Path) -> None:
    types = {".jpg": "image/jpeg", ".png": "image/png"}
    drop(page, *((path.name, types[path.suffix], path.read_bytes()) for path in paths))


def choose_files(page: Page, *paths: Path) -> None:
    """Choose files in the dialog of the browser."""
    with page.expect_file_chooser() as chooser:
        page.get_by_label("Drop images here").click()
    chooser.value.set_files(paths)


def paste(page: Page, content: bytes) -> None:
    """Copy a PNG to the clipboard, and paste it."""
    settle(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(COPY, base64.b64encode(content).decode())
    page.keyboard.press("ControlOrMeta+v")


def drag(page: Page, *points: tuple[float, float]) -> None:
    """Press the mouse at the first point, move it over the others, and release it."""
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def place(locator: Locator, across: float, down: float) -> tuple[float, float]:
    """Scroll to a part; return the point at shares of its width and height."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    assert box is not None
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def part(page: Page, title: str) -> Locator:
    """Return the part of the page with a title."""
    return page.get_by_role("region", name=title, exact=True)


def tiles(page: Page) -> Locator:
    """Return the tiles of the gallery."""
    return part(page, "Your images").locator(".tile")


def picture(page: Page, title: str, name: str) -> Locator:
    """Return a picture of a part that is loaded."""
    found = part(page, title).get_by_role("img", name=name, exact=True)
    expect(found).to_be_visible()
    return found


def source(page: Page, title: str, name: str = "decoded") -> str:
    """Return the address of a picture, which holds its content."""
    address = picture(page, title, name).get_attribute("src")
    assert address is not None
    assert address.startswith("data:image/png;base64,")
    return address


def pixels(address: str) -> np.ndarray:
    """Return the pixels of a picture by its address."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
