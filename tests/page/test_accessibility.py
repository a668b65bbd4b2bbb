"""The page by keyboard, by the rules of axe-core, on a phone, and with other hosts forbidden."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Server
from tests.page.conftest import Visitor
from tests.page.gestures import (
    CRACKED,
    GOOD,
    choose_files,
    drop_paths,
    part,
    picture,
    source,
    tiles,
    write_digits,
)

pytestmark = pytest.mark.page_slow

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]}
MODELS = ["cookies", "mnist-vae", "mnist-classifier", "photos"]
FOCUSED = """
() => {
  const { activeElement: element } = document;
  const { outlineStyle, outlineWidth } = getComputedStyle(element.closest(".drop") ?? element);
  const box = element.getBoundingClientRect();
  const shown = box.bottom > 0 && box.top < innerHeight;
  return [element.tagName, shown && outlineStyle !== "none" && parseFloat(outlineWidth) > 0];
}
"""


def show_everything(page: Page, directory: Path, model: str) -> None:
    """Bring images, open all that is closed, and wait for the last panel."""
    images = [*GOOD[:2], *CRACKED[:2]] if model in ("cookies", "photos") else []
    choose_files(page, *(images or write_digits(directory, 4)))
    expect(part(page, "Nearest neighbours").get_by_label("Map of your images")).to_be_visible()
    closed = page.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()
    if model == "mnist-vae":
        expect(part(page, "Map of the latent space").get_by_role("application")).to_be_visible()
        picture(page, "Interpolation", "step 9 of 9")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("model", MODELS)
def test_axe_finds_nothing_serious(
    server: Server, visitor: Visitor, tmp_path: Path, model: str, dark: bool
) -> None:
    page = visitor.open(server.url, model, dark=dark)
    show_everything(page, tmp_path, model)
    found = Axe().run(page, options=RULES).response
    print(
        f"{len(found['passes'])} rules passed:",
        [(each["impact"], each["id"], len(each["nodes"])) for each in found["violations"]],
    )
    assert len(found["passes"]) > 30
    assert found["violations"] == []


def press_until(page: Page, key: str, target: str, most: int = 60) -> None:
    """Press a key until an element has the focus, which must be visible after each press."""
    for _ in range(most):
        page.keyboard.press(key)
        tag, visible = page.evaluate(FOCUSED)
        assert tag != "BODY", f"focus is lost before {target}"
        assert visible, f"focus is invisible before {target}, on {tag}"
        if page.evaluate("(target) => document.activeElement.matches(target)", target):
            return
    pytest.fail(f"{target} is not reached by {key}")


def test_a_detector_is_used_by_keyboard_only(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-vae")
    expect(page.get_by_label("Name")).to_be_attached()
    press_until(page, "Tab", "select")
    page.keyboard.type("cookies")
    expect(page.get_by_role("status").first).to_contain_text("ready: cookies")
    press_until(page, "Tab", "input[type=file]")
    add = page.get_by_role("button", name="Add 12 test images")
    expect(add).to_be_visible()
    for _ in range(3):
        press_until(page, "Tab", "select, button", most=1)
    page.keyboard.press("Enter")
    expect(tiles(page)).to_have_count(12)
    expect(part(page, "Your images")).to_contain_text("of 12 anomalous")
    press_until(page, "Tab", ".tile")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(tiles(page).nth(1)).to_have_attribute("aria-pressed", "true")
    expect(part(page, "Anomaly verdict").get_by_role("img", name="Heatmap with")).to_be_visible()
    press_until(page, "Tab", "input[type=range]")
    before = part(page, "Your images").get_by_role("status").text_content()
    page.keyboard.press("ArrowLeft")
    expect(part(page, "Your images").get_by_role("status")).not_to_have_text(before or "")
    chosen = tiles(page).and_(page.locator("[aria-pressed=true]")).locator(".name")
    name = chosen.text_content()
    press_until(page, "Tab", ".map")
    for key in ("ArrowLeft", "ArrowRight"):
        for _ in range(50):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        if chosen.text_content() != name:
            break
    expect(chosen).not_to_have_text(name or "")


def test_an_autoencoder_is_used_by_keyboard_only(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-classifier")
    expect(page.get_by_role("button", name="Add a test image")).to_be_visible()
    press_until(page, "Tab", ".drawing summary")
    page.keyboard.press("Enter")
    press_until(page, "Tab", ".drawing canvas")
    expect(page.locator(".pen")).to_be_visible()
    page.keyboard.press("Space")
    for _ in range(40):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(part(page, "Class").get_by_role("status")).to_contain_text("1, ")
    press_until(page, "Tab", ".latent")
    before = source(page, "Latent vector")
    bar = page.locator(".latent:focus")
    value = float(bar.get_attribute("aria-valuenow") or "")
    page.keyboard.press("ArrowUp")
    assert float(bar.get_attribute("aria-valuenow") or "") > value
    decoded = part(page, "Latent vector").get_by_role("img", name="decoded")
    expect(decoded).not_to_have_attribute("src", before)
    page.keyboard.press("ArrowRight")
    assert bar.get_attribute("aria-label") == "latent 2"
    press_until(page, "Tab", "#map .map")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(part(page, "Map of the latent space").get_by_role("img", name="decoded")).to_be_visible()
    page.keyboard.press("Enter")
    expect(tiles(page)).to_have_count(2)


def test_the_focus_is_never_trapped_or_lost(
    server: Server, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.open(server.url, "mnist-vae")
    show_everything(page, tmp_path, "mnist-vae")
    press_until(page, "Tab", "pre", most=80)
    press_until(page, "Shift+Tab", "header a", most=80)
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUSED)[0] == "BODY"


@pytest.mark.parametrize("model", MODELS)
def test_a_phone_shows_every_panel_without_scrolling_sideways(
    server: Server, visitor: Visitor, tmp_path: Path, model: str
) -> None:
    page = visitor.open(server.url, model, width=390, has_touch=True, is_mobile=True)
    show_everything(page, tmp_path, model)
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    for panel in page.locator("section").all():
        panel.scroll_into_view_if_needed()
        box = panel.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


def test_a_finger_draws(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-classifier", width=390, has_touch=True, is_mobile=True)
    page.get_by_text("Draw an image").tap()
    board = page.get_by_role("application", name="Drawing board")
    board.scroll_into_view_if_needed()
    box = board.bounding_box()
    assert box is not None
    finger = page.context.new_cdp_session(page)
    x = box["x"] + box["width"] / 2
    for kind, share in (("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8)):
        points = [{"x": x, "y": box["y"] + share * box["height"]}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(part(page, "Class").get_by_role("status")).to_contain_text("1, ")


def test_the_page_needs_no_other_host_and_logs_no_error(
    server: Server, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.open(server.url, "mnist-classifier")
    show_everything(page, tmp_path, "mnist-classifier")
    drop_paths(page, *GOOD[:1])
    expect(tiles(page)).to_have_count(5)
    assert visitor.problems == []
