"""Stores for tests: a directory and, if AWS_ENDPOINT_URL names a server of S3, a bucket of it."""

import io
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from obstore.store import ObjectStore, from_url

from bundle.manifest import MANIFEST, ModelManifest
from tests.bundles import write_bundle
from training.pipeline import publish
from training.pipeline.destinations import Destination

S3 = "AWS_ENDPOINT_URL" in os.environ
BUCKET = "models"


@pytest.fixture(params=["file", "s3"] if S3 else ["file"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "s3":
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"
    return f"file://{tmp_path}/store"


def open_store(url: str) -> ObjectStore:
    """Open a store to change its objects."""
    return (
        from_url(url, client_options={"allow_http": True})
        if url.startswith("s3")
        else from_url(url)
    )


def publish_tiny(models: Destination, source: Path, change: bytes = b"") -> str:
    """Publish `tiny` as its next version, with bytes behind its encoder; returns its place."""
    bundle = write_bundle(source / uuid.uuid4().hex, "tiny")
    manifest = ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())
    with models.open_staging("tiny") as staging:
        for file in manifest.files:
            shutil.copy(bundle / file, staging)
        encoder = staging / manifest.graphs["encoder"]
        encoder.write_bytes(encoder.read_bytes() + change)
        return publish.publish(models, staging, manifest).location


class CuttingHandler(SimpleHTTPRequestHandler):
    """Serves files; the body of a path that ends with one of the `cut` suffixes is incomplete."""

    def __init__(self, cut: set[str], *arguments: Any, **options: Any) -> None:
        self.cut = cut
        super().__init__(*arguments, **options)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send a file, or half of it."""
        content = source.read()
        half = any(self.path.endswith(suffix) for suffix in self.cut)
        outputfile.write(content[: len(content) // 2] if half else content)


class ForwardingHandler(CuttingHandler):
    """Forwards requests that read."""

    def __init__(self, server: str, cut: set[str], *arguments: Any) -> None:
        self.upstream = server
        super().__init__(cut, *arguments)

    def do_GET(self) -> None:
        """Forward a request."""
        found = requests.get(f"{self.upstream}{self.path}", headers=dict(self.headers), timeout=60)
        self.send_response(found.status_code)
        for name, value in found.headers.items():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        self.copyfile(io.BytesIO(found.content), self.wfile)


def serving_files(directory: Path, cut: set[str]) -> AbstractContextManager[str]:
    """Serve a directory over HTTP; the URL."""
    return _serving(partial(CuttingHandler, cut, directory=str(directory)))


def forwarding(server: str, cut: set[str]) -> AbstractContextManager[str]:
    """Forward requests to a server; the URL."""
    return _serving(partial(ForwardingHandler, server, cut))


@contextmanager
def _serving(handler: Any) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
