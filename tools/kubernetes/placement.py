"""Runs Envoy as deploy/kubernetes/placement configures it, before replicas that name themselves."""

import http.client
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PLACEMENT = ROOT / "deploy" / "kubernetes" / "placement"
REPLICAS = 3
MODELS = [f"detector-{number}" for number in range(300)]
PATHS = (
    "/v1/models/{}/anomaly-score?heatmap=true",
    "/v1/models/{}/versions/2/encode",
    "/v1/models/{}",
    "/v2/models/{}.anomaly-score/infer",
    "/v2/models/{}/versions/1/infer",
)
START_SECONDS = 30

Configuration = dict[str, Any]


class Replica(BaseHTTPRequestHandler):
    """Responds with its own port, and closes the connection."""

    def do_GET(self) -> None:
        body = str(self.connection.getsockname()[1]).encode()
        with suppress(ConnectionError):  # Envoy has ended
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002
        """Log nothing."""


@contextmanager
def run_replica() -> Iterator[int]:
    """Run a replica until the block ends. Yields its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Replica) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def find_free_port() -> int:
    """Return a port that no one listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def read_manifest(name: str, kind: str) -> Any:
    """Return the manifest of a kind in a file."""
    text = (PLACEMENT / name).read_text(encoding="utf-8")
    return next(each for each in yaml.safe_load_all(text) if each["kind"] == kind)


def configure(port: int, replicas: Sequence[int]) -> Configuration:
    """Return the configuration of envoy.yaml with addresses of this machine."""
    text = read_manifest("envoy.yaml", "ConfigMap")["data"]["envoy.yaml"]
    configuration: Configuration = yaml.safe_load(text)
    resources = configuration["static_resources"]
    resources["listeners"][0]["address"] = _address(port)
    (cluster,) = resources["clusters"]
    cluster["load_assignment"]["endpoints"] = [
        {"lb_endpoints": [{"endpoint": {"address": _address(replica)}} for replica in replicas]}
    ]
    cluster["health_checks"][0] |= {"interval": "0.2s", "no_traffic_interval": "0.2s"}
    return configuration


def _address(port: int) -> Configuration:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def configure_lua(port: int, replicas: Sequence[int]) -> Configuration:
    """Return a configuration with the Lua and the hash of envoy-gateway.yaml."""
    configuration = configure(port, replicas)
    (lua,) = read_manifest("envoy-gateway.yaml", "EnvoyExtensionPolicy")["spec"]["lua"]
    policy = read_manifest("envoy-gateway.yaml", "BackendTrafficPolicy")["spec"]["loadBalancer"]
    resources = configuration["static_resources"]
    (chain,) = resources["listeners"][0]["filter_chains"]
    manager = chain["filters"][0]["typed_config"]
    type_url = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
    source = {"@type": type_url, "default_source_code": {"inline_string": lua["inline"]}}
    manager["http_filters"].insert(0, {"name": "lua", "typed_config": source})
    header = {"header_name": policy["consistentHash"]["header"]["name"]}
    route = {"cluster": "replicas", "hash_policy": [{"header": header}]}
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {"match": {"prefix": "/"}, "route": route}
    ]
    return configuration


@contextmanager
def run_envoy(configuration: Configuration) -> Iterator[None]:
    """Run Envoy until the block ends."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "envoy.yaml"
        path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        command = [str(Path(sys.executable).parent / "envoy"), "--config-path", str(path)]
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        with subprocess.Popen([*command, *options]) as envoy:
            try:
                yield
            finally:
                envoy.terminate()


def fetch(port: int, path: str) -> str:
    """Return the body of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise ConnectionError(f"{path} gives {response.status}: {body}")
        return body
    finally:
        connection.close()


def await_replicas(port: int, path: str, replicas: Sequence[int]) -> None:
    """Wait until Envoy serves, and sends requests only to these replicas."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if {fetch(port, path.format(model)) for model in MODELS} == set(map(str, replicas)):
                return
        except OSError:
            time.sleep(0.2)  # until Envoy listens
    raise TimeoutError(f"Envoy does not serve with {len(replicas)} replicas")


def place(port: int) -> dict[str, str]:
    """Return the replica of each model, the same by each path."""
    placed = {}
    for model in MODELS:
        reached = {fetch(port, path.format(model)) for path in PATHS}
        assert len(reached) == 1, f"requests for {model} reach {len(reached)} replicas"
        placed[model] = reached.pop()
    return placed


def check(name: str, configure: Any) -> None:
    """Check that models are spread, and that few move when a replica leaves."""
    with ExitStack() as stack:
        replicas = [stack.enter_context(run_replica()) for _ in range(REPLICAS - 1)]
        with run_replica() as leaving:
            port = find_free_port()
            stack.enter_context(run_envoy(configure(port, [*replicas, leaving])))
            await_replicas(port, PATHS[0], [*replicas, leaving])
            before = place(port)
            assert fetch(port, "/v1/embeddings") in map(str, [*replicas, leaving])
        await_replicas(port, PATHS[0], replicas)
        after = place(port)
    moved = sum(before[model] != after[model] for model in MODELS)
    shares = Counter(before.values())
    assert min(shares.values()) > len(MODELS) / REPLICAS / 2, shares
    left = shares[str(leaving)]
    print(f"{name}: {sorted(shares.values())} of {len(MODELS)} models on each replica;", end=" ")
    print(f"{moved} move when a replica with {left} leaves")
    assert left <= moved < left + len(MODELS) / 20


if __name__ == "__main__":
    check("envoy.yaml", configure)
    check("envoy-gateway.yaml", configure_lua)
