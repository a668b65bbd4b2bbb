"""The request as curl and as Python, and its times."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import ROOT, Server
from tests.page.conftest import Visitor
from tests.page.gestures import (
    CRACKED,
    DIGITS,
    choose_files,
    drop,
    encode,
    part,
    picture,
    write_digits,
)

pytestmark = pytest.mark.page_slow

TITLES = {
    "cookies": ["anomaly score", "anomaly scores of several images", "embeddings"],
    "mnist-classifier": [
        "class",
        "latent vector",
        "decoded latent vector",
        "samples",
        "interpolation",
        "reconstruction",
    ],
}


def read_code(page: Page) -> str:
    code = part(page, "The request").get_by_label("Code of the request").text_content()
    assert code
    return code


def run(command: list[str], directory: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "client")}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_command_prints_the_score_of_the_page(
    server: Server, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.open(server.url, "cookies")
    photograph = tmp_path / 'a photo\'s; name, "x".jpg'
    shutil.copy(CRACKED[0], photograph)
    choose_files(page, photograph, CRACKED[1])
    shutil.copy(CRACKED[1], tmp_path)
    scored = part(page, "Anomaly verdict").get_by_text(re.compile(r"^Score "))
    request = part(page, "The request")
    for title in ("anomaly score", "anomaly scores of several images"):
        request.get_by_label("Show").select_option(title)
        document = json.loads(run(["sh", "-c", read_code(page)], tmp_path))
        expect(scored).to_contain_text(f"Score {document['results'][0]['score']:.3g}: ")


@pytest.mark.parametrize("model", TITLES)
def test_the_python_code_of_each_request_runs(
    server: Server, visitor: Visitor, tmp_path: Path, model: str
) -> None:
    page = visitor.open(server.url, model)
    paths = write_digits(tmp_path, 2)
    choose_files(page, *paths)
    request = part(page, "The request")
    request.get_by_role("button", name="Python").click()
    for title in TITLES[model]:
        request.get_by_label("Show").select_option(title)
        assert run([sys.executable, "-c", read_code(page)], tmp_path).strip()


def test_the_python_code_prints_the_score_of_the_page(
    server: Server, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.open(server.url, "cookies")
    choose_files(page, CRACKED[0])
    shutil.copy(CRACKED[0], tmp_path)
    request = part(page, "The request")
    request.get_by_label("Show").select_option("anomaly score")
    request.get_by_role("button", name="Python").click()
    printed = re.search(r"score=(\S+),", run([sys.executable, "-c", read_code(page)], tmp_path))
    assert printed is not None
    scored = part(page, "Anomaly verdict")
    expect(scored).to_contain_text(f"Score {float(printed[1]):.3g}: ")


def test_the_times_add_up_to_the_time_of_the_request(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-vae")
    picture(page, "Samples", "sample 16")
    request = part(page, "The request")
    request.get_by_label("Show").select_option("samples")
    times = dict(
        zip(
            request.get_by_role("rowheader").all_text_contents(),
            [
                float(text.split()[0])
                for text in request.locator("td:last-child").all_text_contents()
            ],
            strict=True,
        )
    )
    assert list(times)[-1] == "network and page"
    assert {"queue", "inference"} < {*times}
    total = re.search(r": (\d+) ms", request.locator("caption").text_content() or "")
    assert total is not None
    assert sum(times.values()) == pytest.approx(int(total[1]), abs=1)


def test_the_code_can_be_copied(server: Server, visitor: Visitor) -> None:
    page = visitor.open(server.url, "mnist-vae")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    drop(page, ("seven.png", "image/png", encode(DIGITS[0])))
    request = part(page, "The request")
    request.get_by_label("Show").select_option("reconstruction")
    request.get_by_role("button", name="Copy").click()
    assert page.evaluate("() => navigator.clipboard.readText()") == read_code(page)
