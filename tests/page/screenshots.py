"""Draws the pictures of the page for the documents, and measures the page.

usage: python -m tests.page.screenshots
"""

import io
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

from tests.e2e.conftest import ROOT, start
from tests.page.conftest import ARGUMENTS, CHROMIUM
from tests.page.gestures import CRACKED, choose_files, part, picture, place, tiles

IMAGES = ROOT / "docs" / "assets"
CHOSEN = "cracked-005"  # a test image
QUALITY = 82  # of WebP
SCROLL = "(panel) => scrollBy(0, panel.getBoundingClientRect().top - 16)"
CHOICES = "let last = 0; Math.random = () => (last += 0.381966) % 1;"  # the same at each run


def show_detector(page: Page) -> None:
    """Show the verdict on a cracked cookie, beside other test images."""
    page.get_by_role("button", name="Add 12 test images").click()
    expect(part(page, "Your images")).to_contain_text("of 12 anomalous")
    part(page, "Anomaly verdict").get_by_label("False positive rate").press("ArrowLeft")
    tiles(page).filter(has_text=CHOSEN).click()
    expect(part(page, "Anomaly verdict").get_by_role("img", name="Heatmap with")).to_be_visible()
    page.mouse.move(0, 0)
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")


def show_autoencoder(page: Page) -> None:
    """Show the latents of a digit, and a place on the map."""
    page.get_by_role("button", name="Add 20 test images").click()
    expect(part(page, "Your images")).to_contain_text("of 20 anomalous")
    tiles(page).last.click()
    picture(page, "Reconstruction", "reconstruction")
    part(page, "Reconstruction").evaluate(SCROLL)
    chart = part(page, "Map of the latent space").get_by_label("Map of the latent space")
    page.mouse.move(*place(chart, 0.25, 0.55))
    picture(page, "Map of the latent space", "decoded")


def show_phone(page: Page) -> None:
    """Show the verdict on a cracked cookie."""
    page.get_by_role("button", name="Add 12 test images").click()
    expect(part(page, "Your images")).to_contain_text("of 12 anomalous")
    tiles(page).filter(has_text=CHOSEN).click()
    expect(part(page, "Anomaly verdict").get_by_role("img", name="Heatmap with")).to_be_visible()
    part(page, "Anomaly verdict").evaluate(SCROLL)


PICTURES: dict[str, tuple[Callable[[Page], None], str, int, int, str]] = {
    "playground-light": (show_detector, "cookies", 1280, 1260, "light"),
    "playground-dark": (show_autoencoder, "mnist-latent2", 1280, 1260, "dark"),
    "playground-phone": (show_phone, "cookies", 390, 844, "light"),
}


def draw(browser: Browser, url: str) -> None:
    """Write the pictures, compressed."""
    for name, (show, model, width, height, scheme) in PICTURES.items():
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page.add_init_script(CHOICES)
        page.goto(f"{url}/#{model}")
        show(page)
        page.wait_for_load_state("networkidle")
        path = IMAGES / f"{name}.webp"
        with Image.open(io.BytesIO(page.screenshot())) as shot:
            shot.convert("RGB").save(path, quality=QUALITY, method=6)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")
        page.close()


def measure(browser: Browser, url: str, photograph: Path) -> None:
    """Print the bytes of a first load, and the time until the first verdict."""
    page = browser.new_page()
    loaded: list[Response] = []
    page.on("response", lambda response: loaded.append(response))
    began = time.perf_counter()
    page.goto(f"{url}/#cookies")
    choose_files(page, photograph)
    picture(page, "Anomaly verdict", photograph.name)
    milliseconds = 1000 * (time.perf_counter() - began)
    files = [each for each in loaded if each.url.startswith(url) and "/v1/" not in each.url]
    sizes = [each.request.sizes() for each in files]
    body = sum(size["responseBodySize"] for size in sizes)
    head = sum(size["responseHeadersSize"] for size in sizes)
    print(f"first load: {len(sizes)} files, {body} bytes of content, {head} bytes of headers")
    print(f"from the address to the first verdict: {milliseconds:.0f} ms")


def main() -> None:
    """Serve the shipped models, draw and measure."""
    server = start("--models", "models", "--device", "cpu")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        draw(browser, server.url)
        measure(browser, server.url, CRACKED[0])
        browser.close()
    server.end()


if __name__ == "__main__":
    main()
