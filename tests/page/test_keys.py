"""The page of a service with API keys."""

import json

import pytest
from playwright.sync_api import Page, expect

from service.keys import create_key
from tests.bundles import write_bundle
from tests.page.conftest import Service, Visitor
from tests.page.gestures import DIGITS, drop, encode, part, tiles

EVERY, ENCODE = (create_key(name, [right]) for name, right in (("every", "*"), ("few", "encode")))
STORED = "() => [localStorage.length, sessionStorage.length, document.cookie, location.hash]"


@pytest.fixture
def page(service: Service, visitor: Visitor) -> Page:
    write_bundle(service.models)
    entries = json.loads(EVERY[1]) | json.loads(ENCODE[1])
    service.start(AE_API_KEYS=json.dumps(entries))
    return visitor.open(service.url, allowed="status of 40[13]")


def give(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.keyboard.press("Enter")


def test_the_key_is_asked_for_and_kept_in_memory_only(page: Page) -> None:
    give(page, EVERY[0])
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1")
    drop(page, ("digit.png", "image/png", encode(DIGITS[0])))
    expect(tiles(page).locator(".verdict")).to_have_text("normal")
    expect(part(page, "The request")).to_contain_text("Authorization: Bearer $AE_API_KEY")
    expect(part(page, "The request")).not_to_contain_text(EVERY[0])
    assert page.evaluate(STORED) == [0, 0, "", ""]
    page.reload()
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    expect(page.get_by_label("Key", exact=True)).to_have_value("")


@pytest.mark.page_slow
def test_a_wrong_key_is_refused_and_another_taken(page: Page) -> None:
    give(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("The service does not know this key.")
    give(page, EVERY[0])
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1")
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.page_slow
def test_a_key_without_a_right_is_told_so_by_each_panel(page: Page) -> None:
    give(page, ENCODE[0])
    drop(page, ("digit.png", "image/png", encode(DIGITS[0])))
    expect(part(page, "Anomaly verdict").get_by_role("alert")).to_contain_text(
        "does not permit anomaly-score; it permits: encode"
    )
    expect(tiles(page).locator(".verdict")).to_have_text("failed")


@pytest.mark.page_slow
def test_the_question_comes_back_after_it_is_closed(page: Page) -> None:
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(dialog).to_be_visible()
    give(page, EVERY[0])
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1")


@pytest.mark.page_slow
def test_a_key_that_is_revoked_is_asked_for_again(service: Service, page: Page) -> None:
    give(page, ENCODE[0])
    expect(page.get_by_role("status").first).to_have_text("ready: tiny 1")
    service.stop()
    service.start(AE_API_KEYS=EVERY[1])
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog.get_by_role("alert")).to_have_text("The service does not know this key.")
    give(page, EVERY[0])
    drop(page, ("digit.png", "image/png", encode(DIGITS[0])))
    expect(tiles(page).locator(".verdict")).to_have_text("normal")
