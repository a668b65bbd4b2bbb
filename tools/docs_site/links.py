"""Links of pages, from paths of the repository to pages of the site."""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path

FENCE = re.compile(r"^(```.*?^```)$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
SOURCES = {  # attribute that a browser fetches, by its element
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "script": "src",
    "source": "src",
    "video": "src",
}


def relink(markdown: str, source: str, site: Mapping[str, str], root: Path) -> str:
    """Return the text of a page with links to pages of the site.

    `source` is the page's path in the repository at `root`. `site` maps such paths to paths of the
    site. A link to a file that the site lacks becomes its text and path; a broken link stays.
    """

    def replace(match: re.Match[str]) -> str:
        text, (path, hash_sign, anchor) = match["text"], match["target"].partition("#")
        if not path or ":" in path:  # of this page, or of another site
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = site.get(file) or site.get(f"{file}/README.md")
        if page is None and not (root / file).exists():
            return match[0]
        if page is None:
            return text if text.strip("`") == file else f"{text} (`{file}`)"
        relative = posixpath.relpath(page, posixpath.dirname(site[source]) or ".")
        return f"{match['image']}[{text}]({relative}{hash_sign}{anchor})"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(replace, part) for part in parts)


def list_remote_sources(html: str) -> list[str]:
    """Return the addresses that a browser would fetch from elsewhere to show a page."""
    found: list[str] = []
    parser = _SourceParser(found.append)
    parser.feed(html)
    return found


class _SourceParser(HTMLParser):
    """Reports the sources of elements that are at another address."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__()
        self._report = report

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for address in _list_addresses(tag, values):
            if re.match(r"(?:[a-z]+:)?//", address):
                self._report(address)


def _list_addresses(tag: str, values: Mapping[str, str | None]) -> Iterator[str]:
    yield values.get(SOURCES.get(tag, "")) or ""
    yield from ((part.split() or [""])[0] for part in (values.get("srcset") or "").split(","))
