"""Compares the shapes of this service's responses under /v2 with MLServer's; see check-oracle."""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tools.oracle.requests import Model, Request, build_requests
from tools.oracle.shapes import KNOWN, Shape, compare, describe, find_known

ROOT = Path(__file__).parents[2]
ORACLE = Path(__file__).parent / "model"
RECORDED = ROOT / "tests" / "data" / "oracle" / "mlserver-1.7.1.json"
NAME = "mnist-vae"
BUNDLE = max((ROOT / "models" / NAME).iterdir(), key=lambda path: int(path.name))
START_SECONDS = 60
RESPONSE_SECONDS = 30
POLL_SECONDS = 0.2

Shapes = dict[str, Shape]  # by the name of the request


def fetch(port: int, request: Request) -> Shape:
    """Return the shape of a server's response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RESPONSE_SECONDS)
    try:
        connection.request(request.method, request.path, request.body, dict(request.headers))
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return describe(response.status, headers, response.read())
    finally:
        connection.close()


def find_free_port() -> int:
    """Return a port that no one listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def run_server(command: Sequence[str], port: int, **environment: str) -> Iterator[None]:
    """Run a server until the block ends; wait until it is ready."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        log = stack.enter_context((Path(directory) / "log").open("w+"))
        variables = {**os.environ, **environment}
        server = stack.enter_context(
            subprocess.Popen(command, cwd=directory, env=variables, stdout=log, stderr=log)
        )
        stack.callback(server.terminate)
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(port):
            if server.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                sys.exit(f"{' '.join(command)} is not ready:\n{log.read()}")
            time.sleep(POLL_SECONDS)
        yield


def is_ready(port: int) -> bool:
    """Return True if the server at a port is ready."""
    try:
        return fetch(port, Request("ready", "GET", "/v2/health/ready"))["status"] == "2xx"
    except OSError:
        return False


def fetch_from_service(python: str) -> Shapes:
    """Return the shapes of this service's responses."""
    port = find_free_port()
    interpreter = str(Path(python).absolute())  # not resolved: a link is its environment
    command = [interpreter, "-m", "service", "serve", "--device", "cpu", "--port", str(port)]
    with run_server([*command, "--models", str(BUNDLE)], port):
        requests = build_requests(Model(NAME, BUNDLE.name, height=28, width=28))
        return {request.name: fetch(port, request) for request in requests}


def fetch_from_oracle() -> Shapes:
    """Return the shapes of MLServer's responses, in the environment of this interpreter."""
    port, grpc_port = find_free_port(), find_free_port()
    command = [str(Path(sys.executable).with_name("mlserver")), "start", str(ORACLE)]
    ports = {"MLSERVER_HTTP_PORT": str(port), "MLSERVER_GRPC_PORT": str(grpc_port)}
    with run_server(command, port, **ports):
        requests = {each.name: each for each in build_requests(Model(NAME, "1", 28, 28))}
        return {name: fetch(port, requests[each.like or name]) for name, each in requests.items()}


def report(ours: Shapes, theirs: Shapes) -> bool:
    """Print one line for each request; return True if each difference is known, and occurs."""
    unused, unknown = set(KNOWN), 0
    for name, shape in ours.items():
        found = {each: find_known(name, each) for each in compare(shape, theirs[name])}
        faults = [str(difference) for difference, key in found.items() if key is None]
        known = dict.fromkeys(key for key in found.values() if key is not None)
        unused -= known.keys()
        unknown += len(faults)
        note = f" (known: {', '.join(path for _, path in known)})" if known else ""
        print(f"{name}: {'; '.join(faults) or 'ok'}{note}")
    for name, path in sorted(unused):
        print(f"{name}: {path} is listed as a known difference, but does not differ")
    return not unknown and not unused


def main() -> None:
    """Compare, and exit with 1 if the servers differ or what was recorded is out of date."""
    parser = argparse.ArgumentParser(prog="check-oracle", description=__doc__)
    parser.add_argument("python", help="interpreter of this service")
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.name}")
    arguments = parser.parse_args()
    theirs = fetch_from_oracle()
    if arguments.record:
        RECORDED.write_text(json.dumps(theirs, indent=1) + "\n", encoding="utf-8")
    if not report(fetch_from_service(arguments.python), theirs):
        sys.exit(1)
    if json.loads(RECORDED.read_text(encoding="utf-8")) != theirs:
        sys.exit(f"{RECORDED.name} differs from MLServer's responses; renew it with --record")


if __name__ == "__main__":
    main()
