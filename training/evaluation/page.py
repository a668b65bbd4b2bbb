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
from training.export.published import Published

PAGE = "index.html"


class Picture(NamedTuple):
    name: str  # of the PNG
    title: str
    caption: str
    figure: Figure
    most_bytes: int | None = None  # of the PNG, which has fewer colours then


class Table(NamedTuple):
    title: str
    heads: Sequence[str]  # of the columns
    rows: Sequence[Sequence[str]]
    caption: str = ""


class Text(NamedTuple):
    title: str
    sentences: Sequence[str]


Section = Picture | Table | Text


def write_page(model: Published, sections: Iterable[Section], directory: Path) -> Path:
    """Write the pictures as PNGs and all sections as one page, which is given."""
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / PAGE
    text = "\n".join(_html(section, directory) for section in sections)
    page.write_text(_page(model, text), encoding="utf-8")
    return page


def metrics(model: Published) -> Table:
    """The metrics of a bundle's manifest."""
    rows = [(name, f"{value:.6g}") for name, value in model.manifest.metrics.items()]
    return Table("Metrics on test images, through the exported graphs", (), rows)


def _html(section: Section, directory: Path) -> str:
    title = f"<h2>{html.escape(section.title)}</h2>"
    match section:
        case Picture():
            return f"{title}\n<p>{html.escape(section.caption)}</p>\n{_image(section, directory)}"
        case Table():
            caption = f"<p>{html.escape(section.caption)}</p>\n" if section.caption else ""
            return f"{title}\n{caption}{_table(section)}"
        case Text():
            return "\n".join(
                [title, *(f"<p>{html.escape(sentence)}</p>" for sentence in section.sentences)]
            )


def _image(picture: Picture, directory: Path) -> str:
    """The element that shows a picture, which is written as a PNG too."""
    path = directory / f"{picture.name}.png"
    plots.save(picture.figure, path, picture.most_bytes)
    inline = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(picture.title)}" src="data:image/png;base64,{inline}">'


def _table(table: Table) -> str:
    head = f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in table.heads)}</tr>"
    rows = [
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    ]
    return "\n".join(["<table>", *([head] if table.heads else []), *rows, "</table>"])


def _page(model: Published, sections: str) -> str:
    manifest = model.manifest
    title = html.escape(f"{manifest.name}, version {manifest.version}")
    recipe = html.escape(json.dumps(manifest.provenance.recipe, indent=1))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.1rem 1.2rem 0.1rem 0; text-align: left; font-variant-numeric: tabular-nums; }}
th {{ border-bottom: 1px solid; }}
</style>
<h1>{title}</h1>
{_warning(manifest)}<p>{html.escape(manifest.description)}.<br>
{html.escape(manifest.architecture)}; {manifest.latent_dim} latent dimensions.</p>
{sections}
<h2>Recipe</h2>
<pre>{recipe}</pre>
</html>
"""


def _warning(manifest: ModelManifest) -> str:
    weak = manifest.selection.weak if manifest.selection else None
    return (
        f"<p><strong>Warning: this detector is weak: {html.escape(weak)}.</strong></p>\n"
        if weak
        else ""
    )
