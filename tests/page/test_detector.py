"""The page with an anomaly detector: verdict, threshold, heatmap, gallery and CSV."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Server
from tests.page.conftest import Visitor
from tests.page.gestures import (
    CRACKED,
    GOOD,
    choose_files,
    drop,
    drop_paths,
    part,
    picture,
    pixels,
    place,
    tiles,
)

VERDICT = "Anomaly verdict"
COOKIES = [*GOOD, *CRACKED]


@pytest.fixture
def page(server: Server, visitor: Visitor) -> Page:
    return visitor.open(server.url, "cookies", allowed="status of 4(15|22)")


def score(server: Server, path: Path, query: str = "") -> dict[str, Any]:
    """Return what the API says of a photograph."""
    response = requests.post(
        f"{server.url}/v1/models/cookies/anomaly-score{query}",
        data=path.read_bytes(),
        headers={"Content-Type": "image/jpeg"},
        timeout=60,
    )
    result: dict[str, Any] = response.json()["results"][0]
    return result


def read_threshold(page: Page) -> float:
    label = part(page, VERDICT).get_by_role("img", name="Histogram").get_attribute("aria-label")
    found = re.search(r"Threshold (\S+)\.", label or "")
    assert found is not None
    return float(found[1])


@pytest.mark.page_slow
def test_the_card_shows_metrics_and_the_provider(page: Page) -> None:
    card = part(page, "Model")
    expect(card).to_contain_text("CPUExecutionProvider")
    expect(card).to_contain_text("AUROC against defects")
    expect(card.get_by_label("Name")).to_have_value("cookies")
    expect(page.get_by_role("status").first).to_contain_text("ready: cookies")


def test_a_photograph_gets_its_score_and_p_value(server: Server, page: Page) -> None:
    choose_files(page, CRACKED[0])
    result = score(server, CRACKED[0])
    verdict = part(page, VERDICT)
    expect(verdict).to_contain_text(f"Score {result['score']:.3g}: ")
    expect(verdict).to_contain_text("normal images score at least as high (p = 0.063)")
    histogram = verdict.get_by_role("img", name=f"This image {result['score']:.3g}.")
    expect(histogram.locator("canvas")).to_be_visible()


def test_the_slider_moves_the_threshold_and_the_number_of_anomalous_tiles(page: Page) -> None:
    drop_paths(page, *COOKIES)
    gallery = part(page, "Your images")
    anomalous = gallery.locator(".tile.anomalous")
    slider = part(page, VERDICT).get_by_label("False positive rate")
    expect(gallery).to_contain_text("0 of 10 anomalous, at one false alarm in 20")
    strict = read_threshold(page)
    slider.focus()
    slider.press("ArrowLeft")
    expect(gallery).to_contain_text("6 of 10 anomalous, at one false alarm in 10")
    expect(anomalous).to_have_count(6)
    expect(part(page, VERDICT)).to_contain_text("one false alarm in 10 good parts")
    assert read_threshold(page) < strict
    page.mouse.click(*place(slider, 0.02, 0.5))
    expect(anomalous).to_have_count(9)


@pytest.mark.page_slow
def test_the_verdict_follows_the_threshold(page: Page) -> None:
    choose_files(page, CRACKED[0])
    verdict = part(page, VERDICT)
    expect(verdict.get_by_text("Normal", exact=True)).to_be_visible()
    verdict.get_by_label("False positive rate").press("ArrowLeft")
    expect(verdict.get_by_text("Anomalous", exact=True)).to_be_visible()


def test_regions_lie_inside_the_photograph_and_can_be_hidden(server: Server, page: Page) -> None:
    choose_files(page, CRACKED[2])
    photograph = picture(page, VERDICT, CRACKED[2].name)
    regions = part(page, VERDICT).locator(".region")
    expected = score(server, CRACKED[2], "?heatmap=true")["regions"]
    assert expected
    expect(regions).to_have_count(len(expected))
    frame = photograph.bounding_box()
    assert frame is not None
    for region, shown in zip(expected, regions.all(), strict=True):
        box = shown.bounding_box()
        assert box is not None
        scale = frame["width"] / 192
        assert box["x"] - frame["x"] == pytest.approx(region["x"] * scale, abs=1)
        assert box["y"] - frame["y"] == pytest.approx(region["y"] * scale, abs=1)
        assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
        assert box["y"] + box["height"] <= frame["y"] + frame["height"] + 1
    part(page, VERDICT).get_by_label("Boxes around regions").uncheck()
    expect(regions).to_have_count(0)


@pytest.mark.page_slow
def test_the_heatmap_lies_over_the_photograph_with_an_opacity(page: Page) -> None:
    choose_files(page, CRACKED[2])
    photograph = picture(page, VERDICT, CRACKED[2].name)
    heatmap = part(page, VERDICT).get_by_role("img", name="Heatmap with")
    assert heatmap.bounding_box() == photograph.bounding_box()
    assert np.ptp(pixels(heatmap.evaluate("(canvas) => canvas.toDataURL()"))[..., 3]) > 50
    opacity = part(page, VERDICT).get_by_label("Opacity of the heatmap")
    opacity.press("Home")
    expect(heatmap).to_have_css("opacity", "0")
    opacity.press("ArrowRight")
    expect(heatmap).to_have_css("opacity", "0.05")


@pytest.mark.page_slow
def test_the_opacity_stays_for_the_next_photograph(page: Page) -> None:
    choose_files(page, *CRACKED[:2])
    opacity = part(page, VERDICT).get_by_label("Opacity of the heatmap")
    opacity.press("Home")
    tiles(page).filter(has_text=CRACKED[1].name).click()
    picture(page, VERDICT, CRACKED[1].name)
    expect(opacity).to_have_value("0")


def test_the_gallery_is_sorted_and_its_csv_holds_the_scores_of_the_api(
    server: Server, page: Page
) -> None:
    drop_paths(page, *COOKIES)
    gallery = part(page, "Your images")
    expect(gallery).to_contain_text("0 of 10 anomalous")
    with page.expect_download() as download:
        gallery.get_by_role("button", name="Save as CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    expected = {path.name: score(server, path) for path in COOKIES}
    assert len(rows) == len(COOKIES)
    for row in rows:
        assert float(row["score"]) == pytest.approx(expected[row["name"]]["score"], abs=1e-4)
        assert float(row["p_value"]) == expected[row["name"]]["p_value"]
        assert row["anomalous at 1 in 20"] == "false"
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    names = tiles(page).locator(".name").all_text_contents()
    assert names == [row["name"] for row in rows]


@pytest.mark.page_slow
def test_names_cannot_compute_in_a_spreadsheet(page: Page) -> None:
    drop(page, ('=1+1,".png', "image/jpeg", GOOD[0].read_bytes()))
    expect(tiles(page).locator(".verdict")).to_have_text("normal")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    (row,) = csv.DictReader(Path(download.value.path()).read_text().splitlines())
    assert row["name"] == "'=1+1,\".png"


def test_a_file_that_is_no_image_fails_alone(page: Page) -> None:
    good = ("good.jpg", "image/jpeg", GOOD[0].read_bytes())
    text = ("text.png", "image/png", b"no image")
    drop(page, text, good, ("other.jpg", "image/jpeg", GOOD[1].read_bytes()))
    expect(tiles(page).filter(has_text="text.png")).to_contain_text("failed")
    expect(tiles(page).filter(has_text="good.jpg")).to_contain_text("normal")
    expect(part(page, "Your images")).to_contain_text(
        "0 of 2 anomalous, at one false alarm in 20; 1 failed"
    )


def test_neighbours_are_sorted_by_similarity_and_can_be_chosen(page: Page) -> None:
    drop_paths(page, *COOKIES)
    neighbours = part(page, "Nearest neighbours")
    similar = neighbours.locator(".tile")
    expect(similar).to_have_count(6)
    values = [float(text) for text in similar.locator(".verdict").all_text_contents()]
    assert values == sorted(values, reverse=True)
    name = similar.first.locator(".name").text_content()
    similar.first.click()
    chosen = tiles(page).and_(page.locator("[aria-pressed=true]"))
    expect(chosen.locator(".name")).to_have_text(name or "")
    expect(similar.first.locator(".name")).not_to_have_text(name or "")


@pytest.mark.page_slow
def test_a_click_on_the_map_chooses_the_nearest_image(page: Page) -> None:
    drop_paths(page, *COOKIES)
    chart = part(page, "Nearest neighbours").get_by_label("Map of your images")
    expect(part(page, "Nearest neighbours").locator(".tile")).to_have_count(6)
    chosen = tiles(page).and_(page.locator("[aria-pressed=true]")).locator(".name")
    seen = set()
    for corner in ((0.02, 0.02), (0.98, 0.98), (0.02, 0.98), (0.98, 0.02)):
        page.mouse.click(*place(chart, *corner))
        seen.add(chosen.text_content())
    assert len(seen) > 1
