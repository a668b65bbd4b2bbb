"""Shapes of responses equal those recorded from MLServer; `make oracle` runs MLServer itself."""

import json

import pytest
from starlette.testclient import TestClient

from tests.conftest import DATA
from tools.oracle.requests import Model, Request, build_requests
from tools.oracle.shapes import KNOWN, Shape, compare, describe, find_known

RECORDED = json.loads((DATA / "oracle" / "mlserver-1.7.1.json").read_text(encoding="utf-8"))
REQUESTS = build_requests(Model("tiny-vae", "1", height=4, width=6))


def fetch(client: TestClient, request: Request) -> Shape:
    response = client.request(
        request.method, request.path, content=request.body, headers=dict(request.headers)
    )
    return describe(response.status_code, response.headers, response.content)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_a_response_has_the_shape_of_mlservers(client: TestClient, request_: Request) -> None:
    differences = compare(fetch(client, request_), RECORDED[request_.name])
    assert [str(each) for each in differences if find_known(request_.name, each) is None] == []


def test_every_known_difference_occurs(client: TestClient) -> None:
    found = {
        find_known(request.name, difference)
        for request in REQUESTS
        for difference in compare(fetch(client, request), RECORDED[request.name])
    }
    assert set(KNOWN) - found == set()


def test_every_response_is_recorded() -> None:
    assert [*RECORDED] == [request.name for request in REQUESTS]


def test_shapes_differ_by_status_header_key_and_type() -> None:
    def shape(status: int, **document: object) -> Shape:
        headers = {"content-type": "application/json"}
        return describe(status, headers, json.dumps(document).encode())

    assert compare(shape(404, error="this"), shape(422, error="that")) == []
    for ours, theirs, path in (
        (shape(200), shape(404), "status"),
        (shape(200), describe(200, {"content-type": "text/plain"}, b"{}"), "content-type"),
        (shape(200, id="a"), shape(200), "$.id"),
        (shape(200, id="a"), shape(200, id=1), "$.id"),
        (shape(200, a=[0]), shape(200, a=[0.0]), "$.a[]"),
        (shape(200, a=[{"b": 1}, {}]), shape(200, a=[{"b": 1}]), "$.a[].b"),
    ):
        assert [difference.path for difference in compare(ours, theirs)] == [path]
