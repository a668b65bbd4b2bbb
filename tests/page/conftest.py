"""A real Chromium, and real servers, for tests by the gestures of a user."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import Server, start

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

CHROMIUM = shutil.which("chromium")
HAS_PLAYWRIGHT = importlib.util.find_spec("playwright") is not None


class SkippedModule(pytest.Module):
    """A module of tests that lack the browser."""

    def collect(self) -> Any:
        missing = "Chromium (apt-get install chromium)" if HAS_PLAYWRIGHT else "playwright"
        pytest.skip(f"{missing} is not installed: run `make test-page`", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    """Skip all modules without a browser; they import Playwright."""
    if CHROMIUM and HAS_PLAYWRIGHT:
        return None
    return SkippedModule.from_parent(parent, path=module_path)


ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP page.test 127.0.0.1",  # an address that is not secure without TLS
]
TIMEOUT_MILLISECONDS = 15_000


class Visitor:
    """Opens pages, and collects their console errors and their requests to other hosts."""

    def __init__(self, browser: "Browser") -> None:
        self.problems: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def open(
        self,
        url: str,
        model: str = "",
        allowed: str = "^$",
        dark: bool = False,
        width: int = 1280,
        **options: Any,
    ) -> "Page":
        """Open the page with a model; problems that match `allowed` are ignored."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            **options,
        )
        context.set_default_timeout(TIMEOUT_MILLISECONDS)
        self._contexts.append(context)
        page = context.new_page()
        self._watch(page, urlsplit(url).netloc, re.compile(allowed))
        page.goto(f"{url}/#{model}")
        return page

    def _watch(self, page: "Page", host: str, allowed: re.Pattern[str]) -> None:
        def note(problem: str) -> None:
            if not allowed.search(problem):
                self.problems.append(problem)

        def read(message: "ConsoleMessage") -> None:
            if message.type in ("error", "warning"):
                note(f"{message.type}: {message.text}")

        def check(request: "Request") -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("blob", "data") and parts.netloc != host:
                note(f"request to {request.url}")

        page.on("console", read)
        page.on("pageerror", lambda error: note(f"page error: {error}"))
        page.on("request", check)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


# Of the package: Playwright's event loop must be gone when other tests start theirs.
@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """The service with the shipped models, on a free port."""
    server = start("--models", "models", "--device", "cpu")
    yield server
    assert server.end() == 0


@pytest.fixture
def visitor(browser: "Browser") -> Iterator[Visitor]:
    """Opens pages; the test fails if one of them logs an error or asks another host."""
    visitor = Visitor(browser)
    yield visitor
    visitor.close()
    assert visitor.problems == []


class Service:
    """A service of test bundles, which can be stopped and started again on its port."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self._server: Server | None = None
        self._port = "0"

    def start(self, **environment: str) -> None:
        """Start the service, on the port that it had."""
        arguments = ["--models", str(self.models), "--device", "cpu", "--port", self._port]
        self._server = start(*arguments, AE_MODEL_CONTROL="poll", **environment)
        self._port = self.url.rsplit(":", 1)[1]

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    def stop(self) -> None:
        if self._server:
            self._server.end()
        self._server = None


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of test bundles, not started yet."""
    service = Service(tmp_path / "models")
    service.models.mkdir()
    yield service
    service.stop()
