"""Where the time of one small request goes, inside the process.

    python -m benchmarks.serving.profile [--work runs/serving] [--output docs/results/serving-profile.json]

Requests for the score of a 28x28 PNG are made without a network, 16 at a time, on one core with one thread, first to
an application that answers at once, then to ones that do one thing more each; what a thing costs is the difference.
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
from benchmarks.serving.bodies import picture
from bundle import imaging
from service.api import endpoint
from service.api.dependencies import Services
from service.api.middleware import EncodedSlashes, InternalErrors, RequestLifecycle
from service.api.operation import Call, Operation
from service.api.routes.anomaly_score import OPERATION
from service.app import build_services, create_app
from service.settings import Settings
from service.telemetry import logging

AT_ONCE, ROUNDS, REQUESTS = 16, 7, 1600
MAX_PIXELS = 10**6
PATH = "/v1/models/digits/anomaly-score"


def main() -> None:
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
    body = picture(28, 28, "PNG")
    steps: dict[str, ASGIApp] = {
        "task and messages": _at_once,
        "identity, times, count and log line": RequestLifecycle(_at_once, services.metrics),
        "errors, path, key, options and negotiation": _only(_answer, services),
        "reading the body": _only(_read, services),
        "decoding the PNG": _only(_decode, services),
        "queue, batch, verdict and JSON": create_app(services),
    }
    before, costs = 0.0, {}
    for name, app in steps.items():
        total = await _seconds(app, body)
        costs[name], before = total - before, total
    inference = _inference(services)
    costs["queue, batch, verdict and JSON"] -= inference
    return costs | {"inference": inference}


def _only(handle: Callable[[Call, Any], Awaitable[Response]], services: Services) -> ASGIApp:
    """The application with an operation that does no more than `handle`."""
    operation = Operation(
        OPERATION.name,
        handle,
        OPERATION.options,
        OPERATION.offered,
        OPERATION.response,
        OPERATION.body,
    )
    router = Router(endpoint.build_routes(services, [operation]))
    return RequestLifecycle(InternalErrors(EncodedSlashes(router)), services.metrics)


async def _at_once(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _answer(_: Call, __: object) -> Response:
    return Response(b"", media_type="application/json")


async def _read(call: Call, _: object) -> Response:
    await call.read_images()
    return await _answer(call, _)


async def _decode(call: Call, _: object) -> Response:
    given = await call.read_images()
    assert isinstance(given.images, list)
    imaging.decode(given.images[0], call.model.manifest.input, MAX_PIXELS)
    return await _answer(call, _)


async def _seconds(app: ASGIApp, body: bytes) -> float:
    """Of one request, in the best of some rounds."""
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
                await asyncio.Event().wait()  # the client stays
            return unread.pop()

        await app(scope | {"headers": headers}, receive, send)

    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(REQUESTS // AT_ONCE):
            await asyncio.gather(*(request() for _ in range(AT_ONCE)))
        best = min(best, (time.perf_counter() - began) / REQUESTS)
    return best


def _inference(services: Services) -> float:
    """Seconds of an image in a batch of those that are asked for at once."""
    model = services.registry.get("digits")
    images = np.zeros((AT_ONCE, *model.manifest.input.shape), np.uint8)
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(REQUESTS // AT_ONCE):
            model.run(("encoder", "decoder", "scorer"), {"images": images}, ("scores",))
        best = min(best, (time.perf_counter() - began) / REQUESTS)
    return best


if __name__ == "__main__":
    main()
