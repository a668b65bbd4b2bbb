"""The drawing of the layers, from the contracts of import-linter in pyproject.toml."""

import tomllib
from html import escape
from pathlib import Path

PANEL_WIDTH, PANEL_GAP = 270, 50
LINE_HEIGHT, PADDING, ROW_GAP, MARGIN, TITLE_HEIGHT = 18, 8, 8, 12, 34
ROOMS_IN_LINE = 3
TITLES = {
    "training": "training: offline, torch",
    "bundle": "bundle: the contract",
    "service": "service: online, ONNX Runtime",
}
STYLE = """<style>
text { font: 13px sans-serif; fill: #1f2933; text-anchor: middle }
.title { font-weight: bold }
.panel { fill: #e8edf3 }
.room { fill: #fff; stroke: #9aa5b1 }
.models { fill: #fdf3d7; stroke: #c9a227 }
.arrow { stroke: #7b8794; stroke-width: 2; marker-end: url(#head) }
#head path { fill: #7b8794 }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" orient="auto">
<path d="M0 0L8 4L0 8z"/></marker></defs>"""


def render(project: Path) -> str:
    """Return the drawing as SVG."""
    layers = {name: _read_layers(project, name) for name in TITLES}
    height = max(_measure(rows) for rows in layers.values())
    parts = [STYLE]
    for index, (name, rows) in enumerate(layers.items()):
        left = index * (PANEL_WIDTH + PANEL_GAP)
        parts.append(_draw_panel(left, TITLES[name], rows, _measure(rows)))
    parts.append(_draw_models(height))
    width = len(layers) * (PANEL_WIDTH + PANEL_GAP) - PANEL_GAP
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    label = "Layers of training, bundle and service; imports go down, and to the bundle"
    return f'{start} role="img" aria-label="{label}">\n' + "\n".join(parts) + "\n</svg>\n"


def _read_layers(project: Path, package: str) -> list[list[str]]:
    """Return the lines of each layer of a package, from the top; `__main__` only starts `cli`."""
    contracts = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (
        contract["layers"] for contract in contracts if contract.get("containers") == [package]
    )
    return [_break_lines(layer.split(" | ")) for layer in layers if layer != "__main__"]


def _break_lines(rooms: list[str]) -> list[str]:
    starts = range(0, len(rooms), ROOMS_IN_LINE)
    return [" · ".join(rooms[start : start + ROOMS_IN_LINE]) for start in starts]


def _measure_row(lines: list[str]) -> int:
    return len(lines) * LINE_HEIGHT + PADDING


def _measure(rows: list[list[str]]) -> int:
    return TITLE_HEIGHT + sum(_measure_row(lines) + ROW_GAP for lines in rows) + MARGIN


def _draw_panel(left: int, title: str, rows: list[list[str]], height: int) -> str:
    middle = left + PANEL_WIDTH // 2
    parts = [
        f'<rect class="panel" x="{left}" width="{PANEL_WIDTH}" height="{height}" rx="8"/>',
        f'<text class="title" x="{middle}" y="22">{escape(title)}</text>',
    ]
    top = TITLE_HEIGHT
    for lines in rows:
        parts.append(
            f'<rect class="room" x="{left + MARGIN}" y="{top}" width="{PANEL_WIDTH - 2 * MARGIN}"'
            f' height="{_measure_row(lines)}" rx="4"/>'
        )
        parts += [
            f'<text x="{middle}" y="{top + number * LINE_HEIGHT}">{escape(line)}</text>'
            for number, line in enumerate(lines, start=1)
        ]
        top += _measure_row(lines) + ROW_GAP
    return "\n".join(parts)


def _draw_models(height: int) -> str:
    """Draw the imports of the bundle, and the models that training publishes and service loads."""
    left, right = PANEL_WIDTH, 2 * (PANEL_WIDTH + PANEL_GAP)
    inner, outer = left + PANEL_GAP, right - PANEL_GAP
    middle, top = (left + right) // 2, height - 70
    arrows = [
        (left, 70, inner, 70),
        (right, 70, outer, 70),
        (left, top, inner, top),
        (outer, top, right, top),
    ]
    lines = [
        f'<line class="arrow" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'
        for x1, y1, x2, y2 in arrows
    ]
    return "\n".join(
        [
            *lines,
            f'<rect class="models" x="{inner}" y="{top - 20}" width="{PANEL_WIDTH}" height="40"'
            ' rx="8"/>',
            f'<text x="{middle}" y="{top + 5}">models/NAME/VERSION</text>',
            f'<text x="{middle}" y="{top + 40}">training publishes, service loads</text>',
        ]
    )
