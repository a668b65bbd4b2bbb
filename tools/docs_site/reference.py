"""Write the pages and drawings made from the code: `python -m tools.docs_site.reference`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tools.docs_site import api_page, badges, decisions_page, diagram, recipe_page, responses_page

ROOT = Path(__file__).parents[2]
PAGES: Mapping[str, Callable[[], str]] = {
    "docs/layers.svg": lambda: diagram.render(ROOT / "pyproject.toml"),
    "docs/images/python.svg": lambda: badges.render_python(ROOT),
    "docs/images/licence.svg": lambda: badges.render_licence(ROOT),
    "docs/images/models.svg": lambda: badges.render_models(ROOT),
    "docs/decisions/README.md": lambda: decisions_page.render(ROOT / "docs" / "decisions"),
    "docs/reference/api.md": api_page.render,
    "docs/reference/recipes.md": recipe_page.render,
    "docs/reference/responses.md": responses_page.render,
}


def main() -> None:
    """Write all pages."""
    for path, render in PAGES.items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(render(), encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
