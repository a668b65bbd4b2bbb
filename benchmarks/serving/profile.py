"""Measure the time of each part of a small request, inside the process.

    python -m benchmarks.serving.profile [--work runs/serving]
                                         [--output docs/results/serving-profile.json]

Requests for the score of a 28x28 PNG run without a network connection, 16 at a time. The process
has one core and one thread. The first application responds at once, and each further one has one
part more. The time of a part is the difference.
"""

import argparse
import asyncio
import gc
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.serving import networks
from benchmarks.serving.bodies import draw_picture
from bundle import imaging
from service.api import endpoint
from service.api.dependencies import Services
from service.api.middleware import EncodedSlashes, InternalErrors, RequestLifecycle
from service.api.operation import Call, Operation
from service.api.routes.anomaly_score import OPERATION
from service.app import build_services, create_app
from service.settings import Settings
from service.telemetry import logging

CONCURRENT_REQUESTS, ROUNDS, ROUND_REQUESTS = 16, 7, 1600
MAX_PIXELS = 10**6
PATH = "/v1/models/digits/anomaly-score"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.profile", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/serving"), help="for networks (%(default)s)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("docs/results/serving-profile.json"), metavar="JSON"
    )
    options = parser.parse_args()
    os.sched_setaffinity(0, {0})
    models = (options.work / "models").resolve()
    networks.write("digits", models)
    logging.configure("json", "info")
    services = build_services(Settings(models=models, device="cpu", threads=1))
    gc.collect()
    gc.freeze()
    costs = uvloop.run(_measure(services))
    services.executor.close()
    for name, cost in costs.items():
        print(f"{name:60} {1e6 * cost:6.1f} µs")
    options.output.write_text(json.dumps(costs, indent=1) + "\n")


async def _measure(services: Services) -> dict[str, float]:
    """Seconds of each part of a request."""
    body = draw_picture(28, 28, "PNG")
    steps: dict[str, ASGIApp] = {
        "task and messages": _respond_at_once,
        "identity, times, count and log line": RequestLifecycle(
            _respond_at_once, services.metrics, services.access_log
        ),
        "errors, path, key, options and negotiation": _build_app(_respond, services),
        "reading the body": _build_app(_read, services),
        "decoding the PNG": _build_app(_decode, services),
        "queue, batch, verdict and JSON": create_app(services),
    }
    before, costs = 0.0, {}
    for name, app in steps.items():
        total = await _measure_seconds(app, body)
        costs[name], before = total - before, total
    inference = _measure_inference(services)
    costs["queue, batch, verdict and JSON"] -= inference
    return costs | {"inference": inference}


def _build_app(handle: Callable[[Call, Any], Awaitable[Response]], services: Services) -> ASGIApp:
    """Build the application with an operation that only calls `handle`."""
    operation = Operation(
        OPERATION.name,
        handle,
        OPERATION.options,
        OPERATION.offered,
        OPERATION.response,
        OPERATION.body,
        OPERATION.summary,
    )
    router = endpoint.PostRouter(endpoint.build_routes(services, [operation]), Router())
    return RequestLifecycle(
        InternalErrors(EncodedSlashes(router)), services.metrics, services.access_log
    )


async def _respond_at_once(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _respond(_: Call, __: object) -> Response:
    return Response(b"", media_type="application/json")


async def _read(call: Call, _: object) -> Response:
    await call.read_images()
    return await _respond(call, _)


async def _decode(call: Call, _: object) -> Response:
    images = await call.read_images()
    assert isinstance(images.images, list)
    imaging.decode(images.images[0], call.model.manifest.input, MAX_PIXELS)
    return await _respond(call, _)


async def _measure_seconds(app: ASGIApp, body: bytes) -> float:
    """Seconds of a request, in the best round."""
    headers = [(b"content-type", b"image/png"), (b"content-length", str(len(body)).encode())]
    best = float("inf")

    async def send(message: Message) -> None:
        assert message.get("status", 200) == 200

    async def request() -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
        }
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not unread:
                await asyncio.Event().wait()  # the client stays connected
            return unread.pop()

        await app(scope | {"headers": headers}, receive, send)

    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(ROUND_REQUESTS // CONCURRENT_REQUESTS):
            await asyncio.gather(*(request() for _ in range(CONCURRENT_REQUESTS)))
        best = min(best, (time.perf_counter() - began) / ROUND_REQUESTS)
    return best


def _measure_inference(services: Services) -> float:
    """Seconds of an image in a batch of the concurrent requests."""
    model = services.registry.get("digits").loaded
    assert model is not None  # which the requests before have opened
    images = np.zeros((CONCURRENT_REQUESTS, *model.manifest.input.shape), np.uint8)
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(ROUND_REQUESTS // CONCURRENT_REQUESTS):
            model.chain.run(("encoder", "decoder", "scorer"), {"images": images}, ("scores",))
        best = min(best, (time.perf_counter() - began) / ROUND_REQUESTS)
    return best


if __name__ == "__main__":
    main()
