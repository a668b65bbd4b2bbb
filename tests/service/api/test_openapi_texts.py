"""Names and descriptions in the OpenAPI document, for readers and for generators of clients."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api import tags

VERSION = "/versions/{version}"


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    schema: dict[str, Any] = client.get("/openapi.json").json()
    return schema


def list_operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def find_undescribed(node: Any, place: str = "") -> Iterator[str]:
    """Find all that lacks a description: parameters, headers, bodies, responses and properties."""
    if isinstance(node, list):
        for each in node:
            yield from find_undescribed(each, place)
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("default", "example", "examples"):
                continue
            needy = list_needy(key, value)
            for name, each in needy:
                if not each.get("description") and not is_header(each):
                    yield f"{place}/{key}/{name}"
                yield from find_undescribed(each, f"{place}/{key}/{name}")
            if not needy:
                yield from find_undescribed(value, f"{place}/{key}")


def list_needy(key: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """List what needs a description below a key of the document, by name."""
    if key in ("headers", "properties", "responses", "schemas", "securitySchemes"):
        return list(value.items())
    if key in ("info", "requestBody"):
        return [("", value)]
    if key in ("parameters", "tags"):
        return [(each["name"], each) for each in value if isinstance(each, dict)]
    return []


def is_header(node: dict[str, Any]) -> bool:
    return "#/components/headers/" in node.get("$ref", "")


def test_all_parameters_fields_headers_bodies_and_responses_are_described(
    document: dict[str, Any],
) -> None:
    assert list(find_undescribed(document)) == []


def test_the_search_finds_what_is_not_described() -> None:
    inner = {"items": {"anyOf": [{"properties": {"b": {"type": "string"}}}]}, "description": "A."}
    schema = {"schema": {"properties": {"a": inner}}}
    operation = {
        "parameters": [{"name": "p"}],
        "responses": {"200": {"headers": {"H": {}}, "content": {"application/json": schema}}},
    }
    found = [place.rsplit("/", 1)[-1] for place in find_undescribed(operation)]
    assert sorted(found) == ["200", "H", "b", "p"]


def test_every_operation_has_a_summary_and_a_description(document: dict[str, Any]) -> None:
    for name, operation in list_operations(document):
        assert re.fullmatch(r"[A-Z][a-zA-Z ]{8,40}", operation["summary"]), name
        assert len(operation["description"]) > len(operation["summary"]), name
        assert operation["description"].endswith("."), name
        for status, response in operation["responses"].items():
            assert "Successful Response" not in response["description"], (name, status)


def test_operation_ids_are_short_and_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in list_operations(document)]
    assert len(ids) == len(set(ids))
    for each in ids:
        assert re.fullmatch("[a-z]+(_[a-z]+){0,3}", each), each
    assert {"encode", "encode_version", "anomaly_score", "get_model", "get_model_version"} <= {*ids}


def test_every_tag_is_described_and_used(document: dict[str, Any]) -> None:
    described = [tag["name"] for tag in document["tags"] if tag["description"]]
    used = [operation["tags"] for _, operation in list_operations(document)]
    assert all(len(each) == 1 for each in used)
    assert {*described} == {each[0] for each in used}
    assert described[0] == tags.MODELS
    assert described[-1] == tags.ONE_VERSION


def test_each_operation_is_once_above_those_of_one_version(document: dict[str, Any]) -> None:
    operations = dict(list_operations(document))
    above = {
        name: operation["summary"]
        for name, operation in operations.items()
        if operation["tags"] != [tags.ONE_VERSION]
    }
    assert not [name for name in above if VERSION in name]
    assert len(above) == len({*above.values()})
    below = operations.keys() - above.keys()
    assert {name.replace(VERSION, "") for name in below} <= above.keys()
    assert len(below) >= 12


def test_every_schema_is_used_and_named_without_internal_words(document: dict[str, Any]) -> None:
    names = set(document["components"]["schemas"])
    assert names == set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert not [name for name in names if re.search("Answer|Body|V2|HTTPValidation", name)]


def test_the_examples_for_a_shell_name_their_path(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/models/{model}/denoise"]["post"]["requestBody"]
    assert "curl ADDRESS/v1/models/mnist-denoising/denoise -F images=" in body["description"]
    assert "ADDRESS/PATH" not in str(document)


def test_whatever_needs_a_key_names_the_errors_of_keys(document: dict[str, Any]) -> None:
    guarded = [each for _, each in list_operations(document) if "security" in each]
    assert len(guarded) > 30
    for operation in guarded:
        assert {"401", "429"} <= operation["responses"].keys(), operation["operationId"]
        assert "Retry-After" in operation["responses"]["429"]["headers"]
    probe = document["paths"]["/readyz"]["get"]
    assert "Retry-After" not in probe["responses"]["503"]["headers"]


def test_every_code_of_an_error_is_explained(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/models/{model}/encode"]["post"]["responses"]
    for status, response in responses.items():
        if status != "200":
            for line in response["description"].splitlines():
                assert re.fullmatch(r"- `[a-z_]+`: [A-Z].{15,}\.", line), line


def test_the_introduction_names_the_limits_and_the_licence(document: dict[str, Any]) -> None:
    assert "at most 8 images or latent vectors, and at most 100,000 bytes" in " ".join(
        document["info"]["description"].split()
    )
    assert document["info"]["license"]["identifier"] == "Apache-2.0"
