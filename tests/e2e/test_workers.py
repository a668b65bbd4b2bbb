"""The real server with two workers, which must appear to be one process."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests

from service.keys import create_key, parse_entries
from service.protocols.open_inference_grpc import open_inference_pb2 as pb
from tests.bundles import write_bundle
from tests.e2e.conftest import ROOT, Server
from tests.service.api.helpers import NPY, npy

CONNECTIONS = 24  # the kernel sends all of them to one worker once in millions of times
RATE = 10  # requests a second of the limited key
BODY = npy(np.zeros((2, 4, 6), np.uint8))


class Service:
    """The server, its models, its log, and its keys."""

    def __init__(self, directory: Path) -> None:
        self.models, self.log = directory / "models", directory / "log"
        write_bundle(self.models, "other", 1)
        write_bundle(self.models, "tiny", 1)
        self.key, entry = create_key("all", ["*", "admin", "metrics"])
        self.limited, limited = create_key("limited", ["encode"])
        limits = parse_entries(limited)["limited"].model_copy(update={"requests_per_second": RATE})
        command = [sys.executable, "-m", "service", "serve", "--port", "0", "--workers", "2"]
        settings = {
            "AE_MODELS": str(self.models),
            "AE_DEVICE": "cpu",
            "AE_MODEL_CONTROL": "explicit",
            "AE_GRPC_PORT": "0",
            "AE_SHUTDOWN_DELAY": "0.5",
            "AE_API_KEYS": f'{entry[:-1]}, "limited": {limits.model_dump_json()}}}',
        }
        with self.log.open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | settings,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        self.server = Server(process, process.stdout.readline())

    def request(self, method: str, path: str, key: str = "", **options: Any) -> requests.Response:
        """Send a request over a connection of its own."""
        headers = {"Authorization": f"Bearer {key or self.key}", **options.pop("headers", {})}
        url = f"{self.server.url}{path}"
        return requests.request(method, url, headers=headers, timeout=60, **options)

    def encode(self, key: str = "") -> requests.Response:
        return self.request("POST", "/v1/models/tiny/encode", key, data=BODY, headers=NPY)

    def encode_by_all(self) -> list[requests.Response]:
        """Responses of both workers."""
        return [self.encode() for _ in range(CONNECTIONS)]

    def count(self, status: int) -> int:
        """Requests to encode with a status, by the metrics."""
        series = f'ae_requests_total{{model="tiny",operation="encode",status="{status}"}} (.*)'
        found = re.search(series, self.request("GET", "/metrics").text)
        return int(float(found[1])) if found else 0

    def kill_a_worker(self) -> None:
        """Kill a worker, and wait until its successor is ready."""
        killed, other = self.list_processes()
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len({*self.list_processes()} - {killed, other}) < 1 or self.find_ready() < 2:
            assert time.monotonic() < deadline, "the worker has no successor"

    def list_processes(self) -> list[int]:
        parent = self.server.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        return [int(child) for child in children.split()]

    def find_ready(self) -> int:
        return int(self.request("GET", "/readyz").json()["workers"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("workers"))
    try:
        yield service
    finally:
        service.server.process.kill()
        service.server.end()


def test_both_workers_serve_and_their_metrics_add_up(service: Service) -> None:
    assert service.server.ready.endswith("| CPUExecutionProvider | 2 workers\n")
    before = service.count(200)
    assert {each.status_code for each in service.encode_by_all()} == {200}
    assert {service.count(200) - before for _ in range(CONNECTIONS)} == {CONNECTIONS}
    assert service.find_ready() == 2
    for worker in (1, 2):
        assert f"worker {worker} service.access: POST" in service.log.read_text()


def test_calls_of_grpc_are_served_by_the_workers(service: Service) -> None:
    address = re.findall(r"grpc://(\S+)", service.server.ready)[0]
    metadata = [("authorization", f"Bearer {service.key}")]
    request = pb.ServerReadyRequest().SerializeToString()
    for index in range(4):
        options = [("grpc.use_local_subchannel_pool", 1), ("ae.channel", index)]
        with grpc.insecure_channel(address, options) as channel:
            ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            response = pb.ServerReadyResponse.FromString(ready(request, metadata=metadata))
        assert response.ready


def test_a_killed_worker_is_started_again_and_no_counter_falls(service: Service) -> None:
    service.encode_by_all()
    before = service.count(200)
    service.kill_a_worker()
    assert service.count(200) == before
    assert {each.status_code for each in service.encode_by_all()} == {200}
    assert service.count(200) == before + CONNECTIONS
    assert "ended with status 137, and is started again" in service.log.read_text()


def test_loading_and_unloading_reach_all_workers(service: Service) -> None:
    write_bundle(service.models, "tiny", 2)
    path = "/v2/repository/models/tiny"
    assert service.request("POST", f"{path}/load").json()["versions"] == [1, 2]
    assert {each.json()["version"] for each in service.encode_by_all()} == {2}
    (service.models / "tiny" / "3").mkdir()
    failed = service.request("POST", f"{path}/load")
    assert (failed.status_code, failed.json()["error"].split(":")[0]) == (400, "tiny/3")
    (service.models / "tiny" / "3").rmdir()
    assert service.request("POST", f"{path}/unload").status_code == 200
    service.kill_a_worker()
    assert {each.status_code for each in service.encode_by_all()} == {404}
    assert service.request("POST", f"{path}/load").status_code == 200
    assert {each.status_code for each in service.encode_by_all()} == {200}


def test_the_rate_of_a_key_is_that_of_all_workers(service: Service) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: service.encode(service.limited).status_code, range(50)))
    most = RATE * (1 + time.monotonic() - began) + 1
    assert {*statuses} <= {200, 429}
    assert RATE <= statuses.count(200) <= most


def test_all_workers_end_by_a_signal_without_a_failed_request(service: Service) -> None:
    noticed = threading.Event()

    def load(_: int) -> set[int]:
        found = set()
        while not noticed.is_set():
            found.add(service.encode().status_code)
        return found

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, index) for index in range(4)]
        service.server.process.send_signal(signal.SIGTERM)
        while service.request("GET", "/readyz").status_code == 200:
            pass
        noticed.set()
        statuses = set().union(*(each.result() for each in loads))
    assert statuses == {200}
    assert service.server.process.wait(timeout=60) == 0
    assert "Traceback" not in service.log.read_text()


def test_an_error_at_the_start_is_printed_once_and_ends_all() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--models", "/nowhere", "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"AE_WORKERS": "2", "AE_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("error: the models directory /nowhere cannot be read") == 1
