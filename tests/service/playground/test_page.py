import re
from pathlib import Path

from starlette.testclient import TestClient

from service.playground.page import STATIC
from tests.service.api.helpers import application, entries

MAX_BYTES = 60_000  # of all that the browser loads, compressed
LOADED = {
    "text/html": re.compile(r'<(?:script|link)[^>]* (?:src|href)="([^"]+)"'),
    "text/javascript": re.compile(r'^import .* from "(.+)";$', re.MULTILINE),
}


def _load_all(client: TestClient) -> dict[str, bytes]:
    """The bytes sent of the page and, by their addresses, of all that it loads."""
    found: dict[str, bytes] = {}
    waiting = ["/"]
    while waiting:
        address = waiting.pop()
        with client.stream("GET", address) as stream:
            found[address] = b"".join(stream.iter_raw())
        response = client.get(address)
        assert response.status_code == 200, address
        pattern = LOADED.get(response.headers["content-type"].split(";")[0])
        links = pattern.findall(response.text) if pattern else []
        base = client.base_url.join(address)
        waiting += {base.join(link).path for link in links} - {*found, *waiting}
    return found


def test_the_page_loads_only_its_own_files_and_few_bytes(client: TestClient) -> None:
    loaded = _load_all(client)
    scripts = {path for path in STATIC.rglob("*.*") if path.suffix in (".js", ".css", ".svg")}
    names = {path.removeprefix("/playground/") for path in loaded} - {"/"}
    assert names == {path.relative_to(STATIC).as_posix() for path in scripts}
    assert sum(map(len, loaded.values())) < MAX_BYTES


def test_the_page_needs_no_key(models: Path) -> None:
    client, _ = application(models, api_keys=entries({"one": ["*"]}))
    with client:
        assert client.get("/").status_code == client.get("/playground/main.js").status_code == 200
        assert client.get("/v1/models").status_code == 401


def test_the_page_has_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert not re.search(r"<script>|style=| on\w+=", page.text)
    assert client.get("/playground/main.js").headers["content-security-policy"] == policy


def test_the_files_are_compressed_and_revalidated(client: TestClient) -> None:
    script = client.get("/playground/vendor/uplot.js")
    assert script.headers["content-encoding"] == "gzip"
    assert script.headers["cache-control"] == "no-cache"
    again = client.get(
        "/playground/vendor/uplot.js", headers={"If-None-Match": script.headers["etag"]}
    )
    assert again.status_code == 304


def test_every_vendored_file_has_its_licence() -> None:
    readme = (STATIC / "vendor" / "README.md").read_text()
    for path in (STATIC / "vendor").iterdir():
        assert path.name == "README.md" or path.name in readme


def test_a_setting_turns_the_page_off(models: Path) -> None:
    client, _ = application(models, playground=False)
    with client:
        response = client.get("/", headers={"Host": "elsewhere.test"}, follow_redirects=False)
        assert response.headers["location"] == "/docs"
        assert client.get("/playground/main.js").status_code == 404


def test_lines_of_the_scripts_are_as_short_as_those_of_python() -> None:
    own = [path for path in STATIC.rglob("*.*") if "vendor" not in path.parts]
    long = [path.name for path in own for line in path.read_text().splitlines() if len(line) > 100]
    assert long == []
