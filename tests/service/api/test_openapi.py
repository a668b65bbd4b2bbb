import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api import schemas
from service.api.errors import STATUSES, V2_ERRORS
from tests.service.api.helpers import TINY


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    schema: dict[str, Any] = client.get("/openapi.json").json()
    return schema


def test_every_operation_is_in_the_openapi_document_with_and_without_version(
    document: dict[str, Any],
) -> None:
    operations = (
        "encode",
        "decode",
        "reconstruct",
        "denoise",
        "sample",
        "anomaly-score",
        "interpolate",
        "classify",
    )
    for prefix in ("/v1/models/{model}", "/v1/models/{model}/versions/{version}"):
        assert {f"{prefix}/{operation}" for operation in operations} | {prefix} <= set(
            document["paths"]
        )
    assert {"/livez", "/readyz", "/v1/models"} <= set(document["paths"])


def test_every_reference_in_the_openapi_document_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names
    assert names <= set(document["components"]["schemas"])


def test_json_responses_have_the_documented_types(client: TestClient) -> None:
    image = {"images": [schemas.EXAMPLE_IMAGE]}
    for path, body, model in (
        ("encode", image, schemas.EncodeResponse),
        ("encode?encoding=base64", image, schemas.EncodeResponse),
        ("reconstruct", image, schemas.ReconstructResponse),
        ("denoise", image, schemas.ImagesResponse),
        ("anomaly-score?heatmap=true", image, schemas.ScoreResponse),
        ("anomaly-score?heatmap=overlay", image, schemas.ScoreResponse),
        ("anomaly-score?false_positive_rate=0.001", image, schemas.ScoreResponse),
        ("sample", {"count": 2}, schemas.SampleResponse),
        ("decode", {"latents": [[0] * 8]}, schemas.ImagesResponse),
        ("interpolate", {"images": image["images"] * 2}, schemas.InterpolateResponse),
        ("classify", image, schemas.ClassifyResponse),
    ):
        model.model_validate_json(client.post(f"{TINY}/{path}", json=body).content)


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        (TINY, "ModelCard"),
        ("/openai/v1/models", "EmbeddingModels"),
        ("/openai/v1/models/tiny", "EmbeddingModel"),
        ("/v2", "ServerMetadata"),
        ("/v2/models/tiny", "ModelMetadata"),
    ],
)
def test_fields_with_defaults_are_always_sent(
    client: TestClient, document: dict[str, Any], path: str, schema: str
) -> None:
    described = document["components"]["schemas"][schema]
    sent = client.get(path).json()
    assert {*sent} == {*described["properties"]} == {*described["required"]}


def test_embeddings_and_the_input_of_a_card_name_what_is_always_sent(
    client: TestClient, document: dict[str, Any]
) -> None:
    schemas_by_name = document["components"]["schemas"]
    body = {"model": "tiny", "input": f"data:image/png;base64,{schemas.EXAMPLE_IMAGE}"}
    embedded = client.post("/v1/embeddings", json=body).json()
    assert {*embedded} == {*schemas_by_name["EmbeddingsResponse"]["required"]}
    assert {*embedded["data"][0]} == {*schemas_by_name["Embedding"]["required"]}
    card = client.get(TINY).json()
    assert {*card["input"]} == {*schemas_by_name["InputSpec"]["required"]}


def test_an_optional_field_of_a_response_is_absent_and_never_null(document: dict[str, Any]) -> None:
    allowing = {
        (name, field)
        for name, schema in document["components"]["schemas"].items()
        if "Request" not in name
        for field, described in schema.get("properties", {}).items()
        if {"type": "null"} in described.get("anyOf", ())
        and field not in schema.get("required", ())
    }
    assert allowing == set()
    score = document["components"]["schemas"]["Score"]["properties"]
    assert {"type": "null"} in score["threshold"]["anyOf"]


def test_the_openapi_document_lists_the_codes_of_every_status(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/models/{model}/encode"]["post"]["responses"]
    for error, problem in STATUSES.items():
        if error not in V2_ERRORS:
            assert f"`{problem.code}`" in responses[str(problem.status)]["description"]
    assert "409" not in responses
    assert set(responses["429"]["headers"]) == {"X-Request-ID", "Server-Timing", "Retry-After"}


KEYS = {"unauthorized", "rate_limited", "overloaded"}


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        ("/v1/models", KEYS),
        ("/v1/models/{model}", {*KEYS, "model_not_found"}),
        (
            "/v1/models/{model}/versions/{version}",
            {*KEYS, "model_not_found", "version_not_found"},
        ),
        (
            "/v1/models/{model}/calibration",
            {*KEYS, "model_not_found", "operation_not_supported"},
        ),
        (
            "/v1/models/{model}/examples",
            {
                *KEYS,
                "forbidden",
                "model_not_found",
                "examples_not_found",
                "model_not_ready",
                "deadline_exceeded",
            },
        ),
        ("/metrics", {*KEYS, "forbidden"}),
        ("/openai/v1/models", KEYS),
        ("/openai/v1/models/{model}", {*KEYS, "model_not_found"}),
    ],
)
def test_a_path_that_is_read_lists_only_the_errors_it_can_give(
    document: dict[str, Any], path: str, codes: set[str]
) -> None:
    responses = document["paths"][path]["get"]["responses"]
    described = "\n".join(each["description"] for each in responses.values())
    assert set(re.findall(r"^- `(\w+)`:", described, re.MULTILINE)) == codes
    assert "`overloaded`: " in responses["503"]["description"]


def test_each_error_has_an_example_of_its_own_status(document: dict[str, Any]) -> None:
    examples = document["components"]["examples"]
    for status in ("429", "503"):
        example = examples[f"Problem.{status}.overloaded"]["value"]
        assert example["status"] == int(status)


def test_the_openapi_document_describes_options_and_encoder(document: dict[str, Any]) -> None:
    encode = document["paths"]["/v1/models/{model}/encode"]["post"]
    assert "never comparable" in encode["description"]
    header = encode["responses"]["200"]["headers"]["X-Encoder"]
    assert "never comparable" in header["description"]
    fields = document["components"]["schemas"]["EncodeResponse"]["properties"]
    assert "never comparable" in fields["encoder"]["description"]
    score = document["paths"]["/v1/models/{model}/anomaly-score"]["post"]
    options = {each["name"]: each for each in score["parameters"]}
    assert {"type": "boolean"} in options["heatmap"]["schema"]["anyOf"]
    assert "overlay" in [each.get("const") for each in options["heatmap"]["schema"]["anyOf"]]
    assert not options["false_positive_rate"]["required"]
    assert "default" not in options["false_positive_rate"]["schema"]


def test_the_openapi_document_states_how_many_items_a_request_may_have(
    document: dict[str, Any],
) -> None:
    def content(operation: str, media_type: str = "application/json") -> dict[str, Any]:
        body = document["paths"][f"/v1/models/{{model}}/{operation}"]["post"]["requestBody"]
        schema: dict[str, Any] = body["content"][media_type]["schema"]
        return schema

    for schema in (content("encode"), content("encode", "multipart/form-data")):
        images = schema["properties"]["images"]
        assert (images["minItems"], images["maxItems"]) == (1, 8)
    assert content("decode")["properties"]["latents"]["maxItems"] == 8
    assert content("sample")["properties"]["count"]["maximum"] == 8
    ends = content("interpolate")
    assert ends["properties"]["steps"]["maximum"] == 8
    assert ends["properties"]["latents"]["maxItems"] == 2
    parts = content("interpolate", "multipart/form-data")["properties"]["images"]
    assert (parts["minItems"], parts["maxItems"]) == (2, 2)
    assert ends["oneOf"] == [{"required": ["latents"]}, {"required": ["images"]}]
    (steps,) = (
        each
        for each in document["paths"]["/v1/models/{model}/interpolate"]["post"]["parameters"]
        if each["name"] == "steps"
    )
    assert steps["schema"]["maximum"] == 8
