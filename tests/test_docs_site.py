"""Pages that are made from the code, and the links of the site."""

import re
from pathlib import Path

import pytest

from tools.docs_site.links import LINK, list_remote_sources, relink
from tools.docs_site.openapi import build_document
from tools.docs_site.reference import PAGES
from tools.docs_site.schema_text import describe_default, describe_type, slugify
from training.recipe import AnyRecipe, DetectorRecipe, EmbeddingRecipe, Recipe

ROOT = Path(__file__).parents[1]
SITE = {
    "README.md": "index.md",
    "docs/training.md": "training.md",
    "docs/images/boot.png": "images/boot.png",
    "docs/decisions/README.md": "decisions/README.md",
    "docs/decisions/0001-a.md": "decisions/0001-a.md",
}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_from_the_code_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == PAGES[path](), "run make reference"


@pytest.mark.parametrize("kind", [Recipe, DetectorRecipe, EmbeddingRecipe])
def test_every_entry_of_a_recipe_is_described(kind: type[AnyRecipe]) -> None:
    schema = kind.model_json_schema()
    tables = {**schema["$defs"], kind.__name__: schema}
    assert [
        f"{table}.{name}"
        for table, each in tables.items()
        for name, entry in each.get("properties", {}).items()
        if not entry.get("description")
    ] == []


def test_a_link_leads_to_the_page_of_the_site() -> None:
    text = "[guide](docs/training.md#detectors) ![boot](docs/images/boot.png) [all](docs/decisions)"
    assert relink(text, "README.md", SITE, ROOT) == (
        "[guide](training.md#detectors) ![boot](images/boot.png) [all](decisions/README.md)"
    )
    assert relink("[start](../../README.md)", "docs/decisions/0001-a.md", SITE, ROOT) == (
        "[start](../index.md)"
    )


def test_a_link_to_a_file_that_the_site_lacks_becomes_its_path() -> None:
    text = "[recipes](../training/recipes) and [`training/cli.py`](../training/cli.py)"
    assert relink(text, "docs/training.md", SITE, ROOT) == (
        "recipes (`training/recipes`) and `training/cli.py`"
    )


def test_other_links_broken_links_and_code_stay() -> None:
    text = "[a](#here) [b](https://example.com/x) [c](nowhere.md)"
    text += "\n\n```text\n[d](../training/cli.py)\n```\n"
    assert relink(text, "docs/training.md", SITE, ROOT) == text


def test_the_contents_call_each_page_by_its_title() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    contents = readme.partition("## Contents\n")[2].partition("\n## ")[0]
    links = [(each["text"], ROOT / each["target"]) for each in LINK.finditer(contents)]
    names = {text.lower(): path for text, path in links if path.is_file()}
    titles = {
        path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").lower(): path
        for path in names.values()
    }
    assert names == titles
    assert len(names) > 15


def test_the_site_calls_no_page_but_the_readme_otherwise_than_its_title() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert re.findall(r"- ([^:\n]+): \S+\.md", nav) == ["Overview"]


def test_the_page_of_the_api_explains_each_error_once() -> None:
    page = PAGES["docs/reference/api.md"]()
    coded, plain = page.partition("\n## Errors\n")[2].split("\n### Errors without a code\n")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", coded, re.MULTILINE)
    assert len(rows) > 20
    assert len(rows) == len({*rows})
    assert all(code.startswith("`") for _, code in rows)
    meanings = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", plain, re.MULTILINE)
    assert len(meanings) > 15
    assert len(meanings) == len({(status, request) for status, _, request in meanings})
    assert all("/" in request for _, _, request in meanings)


def test_the_guide_says_which_paths_need_a_key() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"^Requests below (.*?), then need", guide, re.DOTALL | re.MULTILINE)
    prefixes = tuple(re.findall("`(.+?)`", sentence))
    guarded = {
        path
        for path, item in build_document()["paths"].items()
        if any("security" in operation for operation in item.values())
    }
    assert guarded == {path for path in build_document()["paths"] if path.startswith(prefixes)}


def test_sources_at_other_addresses_are_found() -> None:
    page = (
        '<a href="https://example.com"><img src="images/boot.png" srcset="//cdn.example/a.png 2x">'
        '<script src="https://cdn.example/a.js"></script><link href="assets/a.css">'
    )
    assert list_remote_sources(page) == ["//cdn.example/a.png", "https://cdn.example/a.js"]


def test_nested_lists_are_indented_as_the_site_needs() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert [
        (document.name, line)
        for document in documents
        for line in re.sub(
            r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
        ).splitlines()
        if re.match(r" {1,3}[-*] ", line)
    ] == []


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1}, "whole number, at least 1"),
        (
            {"type": "number", "exclusiveMinimum": 0.0, "exclusiveMaximum": 1.5},
            "number, above 0, below 1.5",
        ),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"const": False}, "`false`"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        (
            {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
            "list of lists of numbers",
        ),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]}, "2 numbers"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "number by name"),
        ({"$ref": "#/$defs/Row"}, "[Row](#row)"),
        ({}, "any value"),
    ],
)
def test_the_type_of_a_field_is_said_in_words(schema: dict[str, object], text: str) -> None:
    root = {"$defs": {"Row": {"type": "object", "properties": {"a": {}}}}}
    assert describe_type(schema, root) == text


def test_a_default_is_said_as_it_is_written() -> None:
    owner = {"required": ["name"]}
    assert describe_default("name", {}, owner) == "required"
    assert describe_default("kind", {"default": "mse"}, owner) == '`"mse"`'
    assert describe_default("map", {"default": None}, owner) == "unset"
    assert describe_default("loss", {"default": {"beta": 1}}, owner) == "its defaults"


def test_anchors_are_those_of_github() -> None:
    assert (
        slugify("`[architecture]` of kind `residual-dense`")
        == "architecture-of-kind-residual-dense"
    )
    assert slugify("`POST /v1/models/{model}/encode`") == "post-v1modelsmodelencode"
