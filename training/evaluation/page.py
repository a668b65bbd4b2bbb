"""A self-contained HTML page of pictures, tables and text."""

import base64
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from bundle.manifest import ModelManifest
from training.evaluation import plots
from training.export.published import PublishedBundle

PAGE = "index.html"


class Picture(NamedTuple):
    """A section with a figure, saved as a PNG too."""

    name: str  # of the PNG
    title: str
    caption: str
    figure: Figure
    max_bytes: int | None = None  # of the PNG; colours are reduced to fit


class Table(NamedTuple):
    """A section with a table."""

    title: str
    heads: Sequence[str]  # of the columns
    rows: Sequence[Sequence[str]]
    caption: str = ""


class Text(NamedTuple):
    """A section with paragraphs."""

    title: str
    sentences: Sequence[str]


Section = Picture | Table | Text


def write_page(model: PublishedBundle, sections: Iterable[Section], directory: Path) -> Path:
    """Write pictures as PNGs and all sections as one page; returns the path of the page."""
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / PAGE
    text = "\n".join(_render_section(section, directory) for section in sections)
    page.write_text(_render_page(model, text), encoding="utf-8")
    return page


def list_metrics(model: PublishedBundle) -> Table:
    """A table of the metrics in a bundle's manifest."""
    rows = [(name, f"{value:.6g}") for name, value in model.manifest.metrics.items()]
    return Table("Metrics on test images, through the exported graphs", (), rows)


def _render_section(section: Section, directory: Path) -> str:
    title = f"<h2>{html.escape(section.title)}</h2>"
    match section:
        case Picture():
            caption = f"<p>{html.escape(section.caption)}</p>"
            return f"{title}\n{caption}\n{_render_picture(section, directory)}"
        case Table():
            caption = f"<p>{html.escape(section.caption)}</p>\n" if section.caption else ""
            return f"{title}\n{caption}{_render_table(section)}"
        case Text():
            return "\n".join(
                [title, *(f"<p>{html.escape(sentence)}</p>" for sentence in section.sentences)]
            )


def _render_picture(picture: Picture, directory: Path) -> str:
    """Write a picture as a PNG, and render its HTML element."""
    path = directory / f"{picture.name}.png"
    plots.save(picture.figure, path, picture.max_bytes)
    inline = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(picture.title)}" src="data:image/png;base64,{inline}">'


def _render_table(table: Table) -> str:
    head = f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in table.heads)}</tr>"
    rows = [
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    ]
    return "\n".join(["<table>", *([head] if table.heads else []), *rows, "</table>"])


def _render_page(model: PublishedBundle, sections: str) -> str:
    manifest = model.manifest
    title = html.escape(f"{manifest.name}, version {manifest.version}")
    recipe = html.escape(json.dumps(manifest.provenance.recipe, indent=1))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.1rem 1.2rem 0.1rem 0; text-align: left; font-variant-numeric: tabular-nums; }}
th {{ border-bottom: 1px solid; }}
</style>
<h1>{title}</h1>
{_render_warning(manifest)}<p>{html.escape(manifest.description)}.<br>
{html.escape(manifest.architecture)}; {manifest.latent_dim} latent dimensions.</p>
{sections}
<h2>Recipe</h2>
<pre>{recipe}</pre>
</html>
"""


def _render_warning(manifest: ModelManifest) -> str:
    weak = manifest.selection.weak if manifest.selection else None
    return (
        f"<p><strong>Warning: this detector is weak: {html.escape(weak)}.</strong></p>\n"
        if weak
        else ""
    )
