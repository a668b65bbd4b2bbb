"""Ways to bring images to the page."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.bundles import write_bundle
from tests.e2e.conftest import Server
from tests.page.conftest import Service, Visitor
from tests.page.gestures import (
    CRACKED,
    DIGITS,
    GOOD,
    choose_files,
    drop,
    drop_paths,
    encode,
    part,
    paste,
    picture,
    tiles,
    write_digits,
)

pytestmark = pytest.mark.page_slow

STREAMS = """
() => {
const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.streams = [];
navigator.mediaDevices.getUserMedia = async (wanted) => {
  if (window.waits) await window.waits;
  const stream = await get(wanted);
  window.streams.push(stream);
  return stream;
};
}
"""
LIVE = """
() => {
  const tracks = streams.flatMap((stream) => stream.getTracks());
  return tracks.filter((track) => track.readyState === "live").length;
}
"""


@pytest.fixture
def page(server: Server, visitor: Visitor) -> Page:
    return visitor.open(server.url, "cookies")


def test_files_are_chosen_dropped_and_pasted(page: Page) -> None:
    choose_files(page, GOOD[0])
    expect(tiles(page)).to_have_count(1)
    drop_paths(page, *CRACKED[:2])
    expect(tiles(page)).to_have_count(3)
    paste(page, encode(DIGITS[0]))
    expect(tiles(page)).to_have_count(4)
    expect(tiles(page).and_(page.locator("[aria-pressed=true]"))).to_contain_text("image.png")


def test_a_drop_says_how_many_files_are_no_images(page: Page) -> None:
    drop(
        page,
        ("notes.txt", "text/plain", b"no image"),
        (GOOD[0].name, "image/jpeg", GOOD[0].read_bytes()),
    )
    expect(tiles(page)).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_text("Files that are no images, skipped: 1")


def test_a_photograph_of_the_camera_is_scored_and_the_camera_stops(
    server: Server, visitor: Visitor
) -> None:
    page = visitor.open(server.url, "cookies")
    page.evaluate(STREAMS)
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take the photograph").click()
    expect(tiles(page)).to_contain_text("photograph.png")
    expect(tiles(page).locator(".verdict")).to_have_text("anomalous")
    expect(page.get_by_role("button", name="Camera")).to_be_focused()
    assert page.evaluate(LIVE) == 0


def test_the_camera_stops_if_its_dialog_closes_before_it_opens(page: Page) -> None:
    page.evaluate(STREAMS)
    page.evaluate("() => { window.waits = new Promise((go) => (window.go = go)); }")
    page.get_by_role("button", name="Camera").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.evaluate("() => go()")
    page.wait_for_function("() => streams.length === 1")
    page.wait_for_function(f"() => ({LIVE})() === 0")
    assert page.evaluate(LIVE) == 0


def test_an_address_without_tls_says_why_there_is_no_camera(
    server: Server, visitor: Visitor
) -> None:
    page = visitor.open(server.url.replace("127.0.0.1", "page.test"), "cookies")
    page.get_by_role("button", name="Camera").click()
    expect(page.get_by_role("alert")).to_contain_text("only over HTTPS or on localhost")
    page.get_by_role("button", name="Close").click()
    choose_files(page, GOOD[0])
    expect(part(page, "The request").get_by_role("button", name="Python")).to_be_visible()
    expect(part(page, "The request").get_by_role("button", name="Copy")).to_have_count(0)


def test_test_images_come_one_by_one_or_together_by_their_label(page: Page) -> None:
    page.get_by_role("button", name="Add a test image").click()
    expect(tiles(page)).to_have_count(1)
    page.get_by_label("Test images").select_option("good")
    page.get_by_role("button", name="Add 6 test images").click()
    expect(tiles(page)).to_have_count(7)
    assert tiles(page).filter(has_text="good-").count() >= 6


def test_a_model_without_test_images_offers_none(service: Service, visitor: Visitor) -> None:
    write_bundle(service.models)
    service.start()
    page = visitor.open(service.url)
    expect(page.get_by_role("button", name="Camera")).to_be_visible()
    expect(page.get_by_role("button", name="test image")).to_have_count(0)
    expect(part(page, "Map of the latent space")).to_have_count(0)


def test_a_photograph_of_12_megapixels_gets_its_heatmap(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((4000, 3000)).save(buffer, "JPEG")
    drop(page, ("huge.jpg", "image/jpeg", buffer.getvalue()))
    picture(page, "Anomaly verdict", "huge.jpg")
    heatmap = part(page, "Anomaly verdict").get_by_role("img", name="Heatmap with")
    assert heatmap.evaluate("({ width, height }) => [width, height]") == [1200, 900]


def test_a_photograph_is_turned_as_its_camera_says(page: Page) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    Image.open(CRACKED[2]).rotate(90, expand=True).save(buffer, "JPEG", exif=exif)
    drop(page, ("turned.jpg", "image/jpeg", buffer.getvalue()))
    photograph = picture(page, "Anomaly verdict", "turned.jpg")
    heatmap = part(page, "Anomaly verdict").get_by_role("img", name="Heatmap with")
    expect(heatmap).to_be_visible()
    assert heatmap.bounding_box() == photograph.bounding_box()
    assert photograph.evaluate("(image) => image.naturalWidth / image.naturalHeight") < 1


def test_a_tiff_is_scored_though_the_browser_cannot_show_it(page: Page) -> None:
    buffer = io.BytesIO()
    Image.open(CRACKED[2]).save(buffer, "TIFF")
    drop(page, ("scan.tiff", "image/tiff", buffer.getvalue()))
    expect(tiles(page).locator(".verdict")).to_have_text("normal")
    heatmap = part(page, "Anomaly verdict").get_by_role("img", name="Heatmap with")
    box = heatmap.bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(192 / 256, rel=0.02)


def test_two_thousand_images_are_scored_and_mapped(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-undercomplete")
    drop(
        page,
        *(
            (f"{i}.png", "image/png", encode(np.roll(DIGITS[i % 100], i // 100, 1)))
            for i in range(2000)
        ),
    )
    expect(part(page, "Your images")).to_contain_text(
        "of 2000 anomalous, at one false alarm in 100", timeout=90_000
    )
    expect(part(page, "Your images")).not_to_contain_text("scoring", timeout=90_000)
    expect(part(page, "Nearest neighbours").get_by_label("Map of your images")).to_be_visible(
        timeout=90_000
    )
    expect(tiles(page)).to_have_count(2000)


def test_removing_all_images_leaves_the_focus_at_the_input(page: Page) -> None:
    choose_files(page, GOOD[0])
    page.get_by_role("button", name="Remove all").press("Enter")
    expect(tiles(page)).to_have_count(0)
    expect(page.get_by_label("Drop images here")).to_be_focused()


def test_a_tile_keeps_the_focus_when_its_score_moves_it(page: Page) -> None:
    held: list[Route] = []
    page.route("**/anomaly-score", lambda route: held.append(route))
    drop_paths(page, GOOD[1], CRACKED[2])
    moved = tiles(page).filter(has_text=GOOD[1].name)
    moved.focus()
    expect(tiles(page).first).to_contain_text(GOOD[1].name)
    held[0].continue_()
    expect(tiles(page).first).to_contain_text(CRACKED[2].name)
    expect(moved).to_be_focused()


def test_batches_respect_the_limits_of_the_service(
    service: Service, visitor: Visitor, tmp_path: Path
) -> None:
    write_bundle(service.models)
    service.start(AE_MAX_IMAGES="9", AE_MAX_BODY_BYTES="2000")
    page = visitor.open(service.url)
    drop_paths(page, *write_digits(tmp_path, 12))
    expect(part(page, "Your images")).to_contain_text("of 12 anomalous, at one false alarm in 100")
    expect(part(page, "Nearest neighbours").locator(".tile")).to_have_count(6)
    expect(part(page, "Samples").get_by_role("img")).to_have_count(9)
