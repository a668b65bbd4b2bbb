"""Requests that schemathesis makes from the OpenAPI document, valid and invalid ones."""

import json
import subprocess
import sys
from hashlib import sha256

from tests.e2e.conftest import ROOT, start


def test_the_service_keeps_to_its_document() -> None:
    entry = {"sha256": sha256(b"secret").hexdigest(), "rights": ["*", "metrics", "admin"]}
    server = start(
        *("--models", "models", "--device", "cpu"),
        AE_API_KEYS=json.dumps({"fuzzer": entry}),
        AE_MODEL_CONTROL="explicit",
        AE_LOG_LEVEL="error",
    )
    # Unloading would leave nothing to test.
    options = "--max-examples 15 --seed 1 --exclude-path-regex unload --phases"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *(*options.split(), "examples,coverage,fuzzing", "-H", "Authorization: Bearer secret"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert server.end() == 0
    assert done.returncode == 0, done.stdout
