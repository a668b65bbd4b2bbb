"""Records the responses that the OpenAPI document shows as examples.

usage: python -m tools.response_examples ADDRESS    of a service with the shipped models, on a CPU
"""

import json
import math
import sys
import urllib.request
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "service" / "api" / "examples.json"
RELATIVE, ABSOLUTE = 0.01, 0.001  # differences of numbers between processors
CARDS = ("get_model", "model_metadata")  # recorded beside requests that have an example
PNG = "iVBORw0KGgo"  # the start of each, in base64


def fetch(address: str) -> dict[str, Any]:
    """Send the example of each request, and return the responses by operation ID."""
    responses = {}
    for path, item in _load(f"{address}/openapi.json")["paths"].items():
        for operation in item.values():
            name, content = operation["operationId"], operation.get("requestBody", {})
            body = content.get("content", {}).get("application/json", {}).get("example")
            if (body or name in CARDS) and "{version}" not in path:
                parameters = operation.get("parameters", [])
                examples = {each["name"]: each.get("example") for each in parameters}
                responses[name] = _load(address + path.format(**examples), body)
    return responses


def _load(url: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def resemble(one: Any, other: Any) -> bool:
    """Return True if documents are equal but for pixels, and for rounding errors of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(resemble(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(resemble, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if isinstance(one, str) and isinstance(other, str) and one.startswith(PNG):
        return other.startswith(PNG)
    return bool(one == other)


if __name__ == "__main__":
    FILE.write_text(json.dumps(fetch(sys.argv[1])) + "\n", encoding="utf-8")
