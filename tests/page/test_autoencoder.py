"""The page with autoencoders: pictures, latents, maps, samples, interpolation and classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, Request, expect

from tests.e2e.conftest import Server
from tests.page.conftest import Visitor
from tests.page.gestures import (
    DIGITS,
    choose_files,
    drag,
    drop,
    encode,
    part,
    pixels,
    place,
    source,
    tiles,
    write_digits,
)


def send(server: Server, path: str, digit: int = 0) -> dict[str, Any]:
    """Return what the API says of a digit."""
    document: dict[str, Any] = requests.post(
        f"{server.url}/v1/models/{path}",
        data=encode(DIGITS[digit]),
        headers={"Content-Type": "image/png"},
        timeout=60,
    ).json()
    return document


def read_grey(page: Page, title: str, name: str) -> np.ndarray:
    """Return the grey levels of a picture."""
    return np.asarray(Image.fromarray(pixels(source(page, title, name))).convert("L"), float)


def is_decode(request: Request) -> bool:
    return request.url.endswith("/decode")


@pytest.fixture
def digits(tmp_path: Path) -> list[Path]:
    return write_digits(tmp_path, 3)


def test_an_image_is_beside_its_reconstruction_and_their_difference(
    server: Server, visitor: Visitor, digits: list[Path]
) -> None:
    page = visitor.open(server.url, "mnist-vae")
    choose_files(page, digits[0])
    before = read_grey(page, "Reconstruction", "image")
    after = read_grey(page, "Reconstruction", "reconstruction")
    difference = read_grey(page, "Reconstruction", "difference")
    assert np.array_equal(before, DIGITS[0])
    document = send(server, "mnist-vae/reconstruct")
    assert np.array_equal(after, pixels(f",{document['images'][0]}"))
    assert np.corrcoef(difference.ravel(), abs(before - after).ravel())[0, 1] > 0.9
    error = document["errors"][0]
    expect(part(page, "Reconstruction")).to_contain_text(f"Mean squared error: {error:.3g}")


@pytest.mark.page_slow
def test_more_noise_is_added_and_removed_by_the_slider(
    server: Server, visitor: Visitor, digits: list[Path]
) -> None:
    page = visitor.open(server.url, "mnist-denoising")
    choose_files(page, digits[0])
    noisy = read_grey(page, "Denoising", "with noise")
    denoised = read_grey(page, "Denoising", "denoised")
    assert np.mean((denoised - DIGITS[0]) ** 2) < np.mean((noisy - DIGITS[0]) ** 2) / 5
    words = part(page, "Denoising").get_by_text("Mean squared error")
    before = words.text_content()
    slider = part(page, "Denoising").get_by_label("Noise", exact=True)
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "standard deviation 1.00")
    expect(words).not_to_have_text(before or "")
    noisier = read_grey(page, "Denoising", "with noise")
    assert np.std(noisier - DIGITS[0]) > np.std(noisy - DIGITS[0])


def test_a_bar_that_is_dragged_decodes_its_value(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-latent2")
    bars = part(page, "Latent vector").get_by_role("group", name="Latent vector")
    first = bars.get_by_role("slider", name="latent 1", exact=True)
    expect(first).to_have_attribute("aria-valuenow", "0")
    before = source(page, "Latent vector")
    points = [place(bars, 0.25, 0.5), place(bars, 0.25, 0.2), place(bars, 0.25, 0)]
    with page.expect_request(
        lambda request: (
            is_decode(request) and json.loads(request.post_data or "")["latents"][0] == [3, 0]
        )
    ):
        drag(page, *points)
    expect(first).to_have_attribute("aria-valuenow", "3")
    decoded = part(page, "Latent vector").get_by_role("img", name="decoded")
    expect(decoded).not_to_have_attribute("src", before)
    expected = requests.post(
        f"{server.url}/v1/models/mnist-latent2/decode", json={"latents": [[3, 0]]}, timeout=60
    ).json()["images"][0]
    expect(decoded).to_have_attribute("src", f"data:image/png;base64,{expected}")
    part(page, "Latent vector").get_by_role("button", name="Reset").click()
    expect(decoded).to_have_attribute("src", before)


@pytest.mark.page_slow
def test_the_bars_show_the_latents_of_the_chosen_image(
    server: Server, visitor: Visitor, digits: list[Path]
) -> None:
    page = visitor.open(server.url, "mnist-latent2")
    choose_files(page, digits[0])
    (latents,) = send(server, "mnist-latent2/encode")["latents"]
    for index, value in enumerate(latents):
        bar = part(page, "Latent vector").get_by_role("slider", name=f"latent {index + 1}")
        expect(bar).to_have_attribute("aria-valuenow", str(round(value, 3)))


@pytest.mark.page_slow
@pytest.mark.parametrize("model", ["mnist-latent2", "mnist-classifier"])
def test_moving_over_the_map_decodes(server: Server, visitor: Visitor, model: str) -> None:
    page = visitor.open(server.url, model)
    panel = part(page, "Map of the latent space")
    chart = panel.get_by_label("Map of the latent space")
    expect(panel.get_by_role("listitem")).to_have_text([str(digit) for digit in range(10)])
    page.mouse.move(*place(chart, 0.2, 0.5))
    before = source(page, "Map of the latent space")
    page.mouse.move(*place(chart, 0.8, 0.5))
    decoded = panel.get_by_role("img", name="decoded")
    expect(decoded).not_to_have_attribute("src", before)
    page.mouse.click(*place(chart, 0.8, 0.5))
    expect(tiles(page)).to_have_count(1)


def test_the_same_seed_gives_the_same_samples(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-vae")
    panel = part(page, "Samples")
    first = panel.get_by_role("img", name="sample 1", exact=True)
    expect(panel.get_by_role("img")).to_have_count(16)
    seed_1 = source(page, "Samples", "sample 1")
    panel.get_by_role("button", name="Next seed").click()
    expect(first).not_to_have_attribute("src", seed_1)
    expect(panel.get_by_label("Seed", exact=True)).to_have_value("2")
    seed_2 = source(page, "Samples", "sample 1")
    panel.get_by_label("Seed", exact=True).fill("1")
    expect(first).to_have_attribute("src", seed_1)
    panel.get_by_label("Temperature").press("Home")
    expect(panel.get_by_role("slider")).to_have_attribute("aria-valuetext", "0.0")
    expect(first).not_to_have_attribute("src", seed_1)
    cold = source(page, "Samples", "sample 1")
    expect(panel.get_by_role("img", name="sample 16")).to_have_attribute("src", cold)
    assert seed_2 != cold


@pytest.mark.page_slow
def test_a_strip_leads_from_one_image_to_another(
    server: Server, visitor: Visitor, digits: list[Path]
) -> None:
    page = visitor.open(server.url, "mnist-vae")
    choose_files(page, *digits)
    panel = part(page, "Interpolation")
    expect(panel.get_by_role("img")).to_have_count(9)
    panel.get_by_label("From the chosen image to").select_option("digit-2.png")
    ends = [send(server, "mnist-vae/reconstruct", digit)["images"][0] for digit in (0, 2)]
    for step, content in ((1, ends[0]), (9, ends[1])):
        shown = panel.get_by_role("img", name=f"step {step} of 9")
        expect(shown).to_have_attribute("src", f"data:image/png;base64,{content}")
    middle = source(page, "Interpolation", "step 5 of 9")
    panel.get_by_label("Path").select_option("spherical")
    expect(panel.get_by_role("img", name="step 5 of 9")).not_to_have_attribute("src", middle)


def test_the_classes_have_the_probabilities_of_the_api(
    server: Server, visitor: Visitor, digits: list[Path]
) -> None:
    page = visitor.open(server.url, "mnist-classifier")
    choose_files(page, digits[0])
    (result,) = send(server, "mnist-classifier/classify")["results"]
    panel = part(page, "Class")
    expect(panel.get_by_role("status")).to_have_text(f"7, {100 * result['probability']:.1f} %")
    expect(panel.get_by_role("row")).to_have_count(10)
    expect(panel.get_by_role("rowheader").first).to_have_text("7")


@pytest.mark.page_slow
def test_a_digit_that_is_drawn_is_classified(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-classifier")
    page.get_by_text("Draw an image").click()
    board = page.get_by_role("application", name="Drawing board")
    drag(page, place(board, 0.5, 0.2), place(board, 0.5, 0.5), place(board, 0.5, 0.8))
    expect(part(page, "Class").get_by_role("status")).to_contain_text("1, ")
    expect(tiles(page)).to_have_count(1)
    drag(page, place(board, 0.5, 0.2), place(board, 0.3, 0.3))
    expect(tiles(page)).to_have_count(1)
    page.get_by_role("button", name="Clear the board").click()
    drag(page, place(board, 0.3, 0.2), place(board, 0.7, 0.2), place(board, 0.45, 0.8))
    expect(part(page, "Class").get_by_role("status")).to_contain_text("7, ")
    expect(tiles(page)).to_have_count(2)


@pytest.mark.page_slow
def test_a_stroke_after_all_images_are_removed_shows_the_drawing(
    server: Server, visitor: Visitor
) -> None:
    page = visitor.open(server.url, "mnist-classifier")
    page.get_by_text("Draw an image").click()
    board = page.get_by_role("application", name="Drawing board")
    drag(page, place(board, 0.5, 0.2), place(board, 0.5, 0.5))
    expect(tiles(page)).to_have_count(1)
    page.get_by_role("button", name="Remove all").click()
    expect(tiles(page)).to_have_count(0)
    drag(page, place(board, 0.5, 0.5), place(board, 0.5, 0.8))
    expect(tiles(page)).to_have_count(1)
    expect(part(page, "Class").get_by_role("status")).to_contain_text("1, ")


@pytest.mark.page_slow
def test_the_reconstruction_of_a_format_that_the_browser_does_not_show_is_shown(
    server: Server, visitor: Visitor
) -> None:
    page = visitor.open(server.url, "mnist-vae")
    drop(page, ("digit.tiff", "image/tiff", encode(DIGITS[0], "TIFF")))
    document = send(server, "mnist-vae/reconstruct")
    after = read_grey(page, "Reconstruction", "reconstruction")
    assert np.array_equal(after, pixels(f",{document['images'][0]}"))
    expect(part(page, "Reconstruction").get_by_role("img")).to_have_count(1)
