"""Requests that schemathesis makes from the OpenAPI document, valid and invalid ones."""

import subprocess
import sys

from service.keys import create_key
from tests.e2e.conftest import ROOT, start


def test_the_service_keeps_to_its_document() -> None:
    key, entry = create_key("fuzzer", ["*", "metrics", "admin"])
    server = start(
        *("--models", "models", "--device", "cpu"),
        AE_API_KEYS=entry,
        AE_MODEL_CONTROL="explicit",
        AE_LOG_LEVEL="error",
    )
    # Unloading would leave nothing to test, and paths with versions have the same handlers.
    options = "--max-examples 15 --seed 1 --exclude-path-regex unload|/versions/|/openai/ --phases"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *(*options.split(), "examples,coverage,fuzzing", "-H", f"Authorization: Bearer {key}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert server.end() == 0
    assert done.returncode == 0, done.stdout
