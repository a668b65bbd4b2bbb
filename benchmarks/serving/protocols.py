"""Bytes and time of the same images in each protocol and format of this service.

    python -m benchmarks.serving.protocols [--model NAME] [--seconds S]

Digits are encoded: 256 of them in one request, one request after another; and one in each request
of 16 connections. The server has one core and the load generator another.
"""

import argparse
import asyncio
import base64
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc import aio

from benchmarks.serving import bodies, load, servers
from benchmarks.serving.load import Request, Responses
from bundle.imaging import encode_png
from service.protocols.open_inference_grpc import open_inference_pb2 as pb

Run = Callable[[Any, int, int, float], Responses]
BATCH_IMAGES, CONNECTIONS = 256, 16
WARM_SECONDS = 1.0
GRPC_PORT = servers.PORT + 1
INFER = "/inference.GRPCInferenceService/ModelInfer"
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each channel
DIGITS = Path("tests/data/mnist/train-images-idx3-ubyte.gz")
IDX_HEAD_BYTES = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.protocols", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", default="mnist-vae", metavar="NAME", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=8, metavar="S", help="(%(default)s)")
    options = parser.parse_args(arguments)
    raw = gzip.decompress(DIGITS.read_bytes())[IDX_HEAD_BYTES:]
    digits = np.frombuffer(raw, np.uint8).reshape(-1, 28, 28)[:BATCH_IMAGES]
    many, one = (build_requests(options.model, pixels) for pixels in (digits, digits[:1]))
    cores = sorted(os.sched_getaffinity(0))
    server = servers.ours(options.model)
    sample = next(iter(one.values()))
    port = {"AE_GRPC_PORT": str(GRPC_PORT)}
    print("| format | request, KB | response, KB | ms of 256 images | images a second, one each |")
    print("| --- | --- | --- | --- | --- |")
    with (
        servers.run(server, Path(sys.executable), sample, cores[:1], **port),
        ProcessPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, cores[-1:])) as pool,
    ):
        run = partial(_measure, pool, options.seconds)
        for name in many:
            received = len(load.send(many[name], servers.PORT))
            _print(name, len(many[name].body), received, run(load.run, many[name], one[name]))
        messages = [build_message(options.model, pixels) for pixels in (digits, digits[:1])]
        received = pool.submit(call_once, messages[0]).result()
        _print("gRPC", len(messages[0]), received, run(load_calls, *messages))


def build_requests(model: str, pixels: np.ndarray) -> dict[str, Request]:
    """Return the requests to encode images (n, height, width), by the format."""
    path, infer = f"/v1/models/{model}/encode", f"/v2/models/{model}/infer"
    pngs = [encode_png(image) for image in pixels]
    npy = bodies.npy(path, pixels, both_ways=True)
    tensor = {"name": "images", "shape": list(pixels.shape), "datatype": "UINT8"}
    in_json = json.dumps({"inputs": [tensor | {"data": pixels.ravel().tolist()}]})
    head = json.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": pixels.size}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    length = (("Inference-Header-Content-Length", str(len(head))),)
    urls = [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in pngs]
    openai = json.dumps({"input": urls, "model": model, "encoding_format": "base64"})
    return {
        "`/v1`, JSON with PNG": bodies.in_json(path, pngs),
        "`/v1`, npy": npy,
        "`/v2`, JSON": Request(infer, "application/json", in_json.encode()),
        "`/v2`, binary": Request(
            infer, "application/octet-stream", head + pixels.tobytes(), length
        ),
        "`/v1/embeddings`, base64": Request("/v1/embeddings", "application/json", openai.encode()),
    }


def build_message(model: str, pixels: np.ndarray) -> bytes:
    """Return the message of gRPC to encode images (n, height, width)."""
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[pixels.tobytes()])
    request.inputs.add(name="images", datatype="UINT8", shape=pixels.shape)
    return bytes(request.SerializeToString())


def call_once(message: bytes) -> int:
    """Return the bytes of a response."""
    with grpc.insecure_channel(f"127.0.0.1:{GRPC_PORT}") as channel:
        return len(channel.unary_unary(INFER)(message))


def load_calls(message: bytes, _: int, connections: int, seconds: float) -> Responses:
    """Load the server with calls, each connection one after another."""

    async def call(responses: Responses, until: float) -> None:
        async with aio.insecure_channel(f"127.0.0.1:{GRPC_PORT}", OPTIONS) as channel:
            infer = channel.unary_unary(INFER)
            while (sent := time.perf_counter()) < until:
                await infer(message)
                responses.latencies.append(time.perf_counter() - sent)

    async def run() -> Responses:
        responses, began = Responses(), time.perf_counter()
        await asyncio.gather(*[call(responses, began + seconds) for _ in range(connections)])
        responses.seconds = time.perf_counter() - began
        return responses

    return asyncio.run(run())


def _measure(
    pool: ProcessPoolExecutor, seconds: float, run: Run, many: Any, one: Any
) -> tuple[Responses, Responses]:
    """Return the responses to many images on one connection, and to one image on several."""

    def measure(request: Any, connections: int) -> Responses:
        for length in (WARM_SECONDS, seconds):
            responses = pool.submit(run, request, servers.PORT, connections, length).result()
        return responses

    return measure(many, 1), measure(one, CONNECTIONS)


def _print(name: str, sent: int, received: int, measured: tuple[Responses, Responses]) -> None:
    many, one = measured
    print(
        f"| {name} | {sent / 1000:.0f} | {received / 1000:.0f} "
        f"| {1000 * many.percentile(50):.1f} | {one.rate:,.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
