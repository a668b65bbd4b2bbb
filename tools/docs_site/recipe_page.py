"""The page of all entries of recipes, from the schemas of their configurations."""

from tools.docs_site.schema_text import (
    Schema,
    build_table,
    describe_default,
    describe_type,
    find_objects,
    join_lines,
    slugify,
)
from training.recipe import AnyRecipe, DetectorRecipe, EmbeddingRecipe, Recipe

HEADS = "entry", "value", "default", "meaning"
KINDS: tuple[tuple[str, type[AnyRecipe]], ...] = (
    ("Networks", Recipe),
    ("Detectors", DetectorRecipe),
    ("Embeddings", EmbeddingRecipe),
)
INTRODUCTION = """# Recipe reference

Every entry of every recipe. [The training guide](../training.md#recipes) explains recipes.
[The recipes of this package](../../training/recipes) are complete examples.

- An entry `epochs` of the table `[training]` is `training.epochs` for `--set`.
- An unset entry is not written in the recipe.
- `make reference` writes this page from the code.
"""


def render() -> str:
    """Return the page."""
    written: dict[str, str] = {}  # headings of the tables, by the name of their configuration
    parts = [INTRODUCTION]
    for heading, kind in KINDS:
        schema = kind.model_json_schema()
        parts.append(f"## {heading}\n\n{schema['description']}\n")
        sections = _render_tables(schema, schema, written)
        parts += [_render_entries(schema, schema, written), *sections]
    return "\n".join(parts)


def _render_tables(owner: Schema, root: Schema, written: dict[str, str]) -> list[str]:
    """Render the tables of an owner that are not written yet, and note their headings."""
    parts: list[str] = []
    for name, field in owner["properties"].items():
        tables = find_objects(field, root)
        for title, table in tables.items():
            if title in written:
                continue
            level, written[title] = _choose_heading(name, table, len(tables) > 1, written)
            inner = _render_tables(table, root, written)
            parts.append(f"{level} {written[title]}\n\n{table['description']}\n")
            parts += [_render_entries(table, root, written), *inner]
    return parts


def _choose_heading(
    name: str, table: Schema, one_of_several: bool, written: dict[str, str]
) -> tuple[str, str]:
    if one_of_several:
        kind = table["properties"]["kind"]["const"]
        return "####", f"`[{name}]` of kind `{kind}`"
    heading = f"`[{name}]`"
    return "###", f"{heading} of photographs" if heading in written.values() else heading


def _render_entries(owner: Schema, root: Schema, written: dict[str, str]) -> str:
    rows = [
        [
            f"`{name}`",
            _describe_value(field, root, written),
            describe_default(name, field, owner),
            join_lines(field["description"]),
        ]
        for name, field in owner["properties"].items()
    ]
    return build_table(HEADS, rows) + "\n"


def _describe_value(field: Schema, root: Schema, written: dict[str, str]) -> str:
    tables = find_objects(field, root)
    if not tables:
        return describe_type(field, root)
    return " or ".join(
        f"[{written[name].rpartition(' of kind ')[2]}](#{slugify(written[name])})"
        for name in tables
    )
