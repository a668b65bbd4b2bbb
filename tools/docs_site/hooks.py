"""Hooks of MkDocs: pages from outside of docs/, their links, and no requests to elsewhere."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.docs_site.links import list_remote_sources, relink

ROOT = Path(__file__).parents[2]
# Paths in the repository and on the site, without those of docs/.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "client/README.md": "client.md",
    **{
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).as_posix()
        for pattern in ("models/*/*/README.md", "models/*/*/report/*")
        for path in sorted(ROOT.glob(pattern))
    },
}
_sources: dict[str, str] = {}  # paths in the repository, by those on the site


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/, and note the path of each file in the repository."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    _sources.update({file.src_uri: f"docs/{file.src_uri}" for file in files})
    _sources.update({page: source for source, page in OUTSIDE.items()})
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Return the text of a page with the links of the site."""
    site = {source: uri for uri, source in _sources.items()}
    return relink(markdown, _sources[page.file.src_uri], site, ROOT)


def on_post_build(config: MkDocsConfig) -> None:
    """Raise PluginError if a page would fetch something from elsewhere."""
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        remote = list_remote_sources(path.read_text(encoding="utf-8"))
        if remote:
            raise PluginError(f"{path}: {remote[0]} is not on the site; copy it to docs/")
