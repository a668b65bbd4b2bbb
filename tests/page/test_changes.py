"""Changes while the page is open: models, versions, a busy service, and one that is gone."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.bundles import write_bundle
from tests.e2e.conftest import Server
from tests.page.conftest import Service, Visitor
from tests.page.gestures import (
    DIGITS,
    drop,
    drop_paths,
    encode,
    part,
    picture,
    place,
    source,
    tiles,
    write_digits,
)

pytestmark = pytest.mark.page_slow

GONE = "ERR_CONNECTION_(REFUSED|RESET)|ERR_EMPTY_RESPONSE|status of 503"


@pytest.fixture
def page(service: Service, visitor: Visitor) -> Page:
    write_bundle(service.models, calibration_size=999)
    service.start()
    return visitor.open(service.url, "tiny", allowed=f"{GONE}|status of 4(04|29)")


def test_a_new_version_takes_over_and_images_are_scored_again(service: Service, page: Page) -> None:
    drop(page, ("digit.png", "image/png", encode(DIGITS[0])))
    slider = part(page, "Anomaly verdict").get_by_label("False positive rate")
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "one false alarm in 1000 good parts")
    write_bundle(service.models, version=2, calibration_size=19)
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 2", timeout=30_000)
    expect(slider).to_have_attribute("aria-valuetext", "one false alarm in 20 good parts")
    expect(tiles(page).locator(".verdict")).to_have_text("anomalous")
    expect(part(page, "Anomaly verdict")).to_contain_text("of 19 normal images")


def test_a_version_is_chosen_and_named_in_the_request(service: Service, page: Page) -> None:
    write_bundle(service.models, version=2)
    version = page.get_by_label("Version")
    expect(version.get_by_role("option")).to_have_text(["current (2)", "1", "2"], timeout=30_000)
    version.select_option("1")
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1")
    drop(page, ("digit.png", "image/png", encode(DIGITS[0])))
    code = part(page, "The request").get_by_label("Code of the request")
    expect(code).to_contain_text("/v1/models/tiny/versions/1/")
    shutil.rmtree(service.models / "tiny" / "1")
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 2", timeout=30_000)
    expect(version).to_have_value("")


def test_a_model_that_is_unloaded_is_missed_and_comes_back(service: Service, page: Page) -> None:
    write_bundle(service.models, "other")
    names = page.get_by_label("Name").get_by_role("option")
    expect(names).to_have_text(["other", "tiny"], timeout=30_000)
    (service.models / "tiny").rename(service.models.parent / "away")
    expect(page.get_by_role("alert")).to_have_text("tiny is not loaded.", timeout=30_000)
    expect(page.get_by_role("status").first).to_have_text("ready: other 1")
    (service.models.parent / "away").rename(service.models / "tiny")
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1", timeout=30_000)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_first_model_appears_while_the_page_is_open(service: Service, visitor: Visitor) -> None:
    service.start()
    page = visitor.open(service.url)
    expect(page.get_by_text("No model is loaded yet.")).to_be_visible()
    write_bundle(service.models)
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1", timeout=30_000)


def test_a_busy_service_is_shown_and_asked_again(page: Page) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(status=429, headers={"Retry-After": "1"}, json={"detail": "busy"})

    page.route("**/anomaly-score*", refuse, times=4)
    drop(page, ("digit.png", "image/png", encode(DIGITS[0])))
    expect(page.get_by_role("status").first).to_contain_text("busy")
    expect(tiles(page).locator(".verdict")).to_have_text("normal")
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1")


def test_a_service_that_goes_during_a_drag_comes_back_by_itself(
    service: Service, page: Page
) -> None:
    bars = part(page, "Latent vector").get_by_role("group", name="Latent vector")
    before = source(page, "Latent vector")
    page.mouse.move(*place(bars, 0.05, 0.5))
    page.mouse.down()
    service.stop()
    page.mouse.move(*place(bars, 0.05, 0.1), steps=5)
    page.mouse.up()
    expect(page.get_by_role("status").first).to_contain_text("gone")
    drop(page, ("digit.png", "image/png", encode(DIGITS[0])))
    service.start()
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1", timeout=30_000)
    expect(tiles(page).locator(".verdict")).to_have_text("normal")
    expect(part(page, "Latent vector").get_by_role("img", name="decoded")).not_to_have_attribute(
        "src", before
    )


def test_models_that_are_switched_quickly_end_at_the_last(
    server: Server, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.open(server.url, "mnist-vae")
    drop_paths(page, *write_digits(tmp_path, 40))
    name = page.get_by_label("Name")
    for model in ("mnist-latent2", "cookies", "mnist-denoising", "photos", "mnist-undercomplete"):
        name.select_option(model)
    expect(page.get_by_role("status").first).to_contain_text("ready: mnist-undercomplete")
    expect(part(page, "Your images")).to_contain_text("of 40 anomalous, at one false alarm in 100")
    expect(part(page, "Your images")).not_to_contain_text("scoring")
    picture(page, "Reconstruction", "reconstruction")
    assert page.url.endswith("#mnist-undercomplete")


def test_images_of_a_model_that_was_left_are_not_sent_to_it(
    server: Server, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.open(server.url, "mnist-vae")
    held: list[Route] = []
    page.route("**/mnist-vae/anomaly-score", lambda route: held.append(route))
    drop_paths(page, *write_digits(tmp_path, 40))
    expect(tiles(page)).to_have_count(40)
    page.wait_for_function("() => document.querySelectorAll('.tile img').length === 40")
    assert len(held) == 1
    page.get_by_label("Name").select_option("mnist-undercomplete")
    expect(part(page, "Your images")).to_contain_text("of 40 anomalous")
    held.pop().continue_()
    expect(part(page, "Your images")).not_to_contain_text("scoring")
    assert held == []


def test_the_page_turns_dark_and_narrow_while_it_is_open(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-vae")
    drop(page, ("digit.png", "image/png", encode(DIGITS[0])))
    histogram = part(page, "Anomaly verdict").get_by_role("img", name="This image")
    expect(histogram).to_be_visible()
    width = "() => document.querySelector('.histogram canvas')?.clientWidth"
    page.wait_for_function(f"() => ({width})() > 390")  # it is drawn
    light = histogram.locator("canvas").evaluate("(canvas) => canvas.toDataURL()")
    page.emulate_media(color_scheme="dark")
    expect(page.locator("body")).to_have_css("background-color", "rgb(18, 24, 30)")
    page.wait_for_function(
        "(before) => document.querySelector('.histogram canvas')?.toDataURL() !== before", arg=light
    )
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function(f"() => ({width})() > 0 && ({width})() < 390")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_hidden_page_does_not_ask_for_models(page: Page) -> None:
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1")
    page.clock.install()
    page.reload()
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1")
    page.evaluate(
        "() => Object.defineProperty(document, 'hidden', { value: true, writable: true })"
    )
    looks: list[Request] = []
    page.on("request", lambda each: looks.append(each) if each.url.endswith("/models") else None)
    page.clock.run_for(20_000)
    assert looks == []
    page.evaluate("() => { document.hidden = false; }")
    with page.expect_request("**/v1/models"):
        page.clock.run_for(5_000)
    assert len(looks) == 1
