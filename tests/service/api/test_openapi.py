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


def test_the_openapi_document_lists_the_codes_of_every_status(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/models/{model}/encode"]["post"]["responses"]
    for error, problem in STATUSES.items():
        if error not in V2_ERRORS:
            assert f"`{problem.code}`" in responses[str(problem.status)]["description"]
    assert "409" not in responses
    assert set(responses["429"]["headers"]) == {"X-Request-ID", "Server-Timing", "Retry-After"}


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
