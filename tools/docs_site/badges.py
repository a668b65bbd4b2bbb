"""The badges of the README, from pyproject.toml and the index of the models."""

import json
import tomllib
from html import escape
from pathlib import Path

HEIGHT, LETTER_WIDTH, PADDING = 20, 7, 8


def render_python(root: Path) -> str:
    """Return the badge of the versions of Python."""
    return _draw("Python", str(_read_project(root)["requires-python"]))


def render_licence(root: Path) -> str:
    """Return the badge of the licence."""
    return _draw("licence", str(_read_project(root)["license"]))


def render_models(root: Path) -> str:
    """Return the badge of the number of shipped models."""
    bundles = json.loads((root / "models" / "index.json").read_text(encoding="utf-8"))["bundles"]
    return _draw("shipped models", str(len({bundle["name"] for bundle in bundles})))


def _read_project(root: Path) -> dict[str, object]:
    project: dict[str, object] = tomllib.loads(
        (root / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    return project


def _draw(name: str, value: str) -> str:
    left, right = (len(text) * LETTER_WIDTH + 2 * PADDING for text in (name, value))
    shapes = "".join(
        f'<rect x="{x}" width="{width}" height="{HEIGHT}" fill="{fill}"/>'
        f'<text x="{x + width / 2:g}" y="14" fill="#fff" font-family="sans-serif" font-size="11"'
        f' text-anchor="middle">{escape(text)}</text>'
        for x, width, fill, text in (
            (0, left, "#4a5560", name),
            (left, right, "#0f766e", value),
        )
    )
    label = escape(f"{name}: {value}", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{HEIGHT}"'
        f' role="img" aria-label="{label}">{shapes}</svg>\n'
    )
