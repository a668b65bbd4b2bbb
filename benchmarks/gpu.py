"""Measure the service on an NVIDIA GPU, against the bare CUDA session and the device's limits.

    python -m benchmarks.gpu [--device cuda] [--seconds 3] [--output docs/results/gpu.json]

With `--device cpu` the command runs on the CPU, to try it without a GPU. The metrics of each
network and each option are:

- images a second through HTTP (256 images in an npy body, 4 connections);
- images a second of the bare session, fed from the host's memory in batches of 64;
- the mean batch of single-image requests at 64 connections;
- the largest difference of a score from the CPU's;
- the seconds until ready, and memory.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.serving import bodies, load, networks, servers
from benchmarks.serving.servers import PORT
from service.inference.engine import inspect_machine
from service.inference.providers import CPU_PROVIDER, GPU_DEFAULTS, build_cuda_provider
from training.architectures import build

OUTPUT = Path("docs/results/gpu.json")
BATCH_IMAGES, BODY_IMAGES = 64, 256  # in a run of the session, and in a request
OPTIONS: dict[str, dict[str, str]] = {
    "default": {},
    "CUDA graphs": {"AE_CUDA_GRAPHS": "true"},
    "TF32": {"AE_TF32": "true"},
    "batches of 256": {"AE_MAX_BATCH_SIZE": "256"},
}
# Peak rates by NVIDIA: float32 operations a second without tensor cores, bytes a second of memory.
PEAKS = {"H100": (67e12, 3.35e12), "H200": (67e12, 4.8e12)}
Results = dict[str, Any]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load (%(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/serving"), help="for networks (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="JSON", help="(%(default)s)")
    options = parser.parse_args()
    device = _find_device_name(options.device)
    print(device)
    models = (options.work / "models").resolve()
    results: Results = {"device": device}
    for net in networks.NETS:
        graph = networks.write(net, models)
        results[net] = {
            "limit": _compute_limit(net, device),
            "bare": _measure_session(graph, options.device, options.seconds),
        }
        print(
            f"{net}: bare session {results[net]['bare']:,.0f} images a second;"
            f" by its peaks {results[net]['limit']}"
        )
        for name, environment in OPTIONS.items() if options.device == "cuda" else [("default", {})]:
            results[net][name] = _print(
                name, _serve(net, graph, options, environment | {"AE_MODELS": str(models)})
            )
        fp16 = _serve(
            net, graph, options, {"AE_MODELS": str(models)}, served=networks.write_fp16(net, models)
        )
        results[net]["fp16"] = _print("fp16", fp16)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


def _print(name: str, results: Results) -> Results:
    text = ", ".join(f"{key} {value:.4g}" for key, value in results.items())
    print(f"  {name}: {text}", flush=True)
    return results


def _find_device_name(device: str) -> str:
    if device == "cpu":
        return f"CPU, {os.cpu_count()} cores"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def _compute_limit(net: str, device: str) -> Results:
    """Images a second by the device's peak rates: one by its operations, one by its bandwidth."""
    spec = networks.NETS[net].spec
    model = build(networks.NETS[net].architecture, spec)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.decode(model.encode(torch.zeros(1, spec.channels, spec.height, spec.width)).mean)
    operations, moved = counter.get_total_flops(), spec.channels * spec.height * spec.width
    peak = next((rates for name, rates in PEAKS.items() if name in device), None)
    needed: Results = {"operations": operations, "bytes in": moved}
    if peak is None:
        return needed
    return needed | {"by operations": peak[0] / operations, "by bytes": peak[1] / moved}


def _open_session(graph: Path, device: str) -> onnxruntime.InferenceSession:
    inspect_machine()  # loads the libraries of CUDA
    provider = build_cuda_provider(GPU_DEFAULTS) if device == "cuda" else CPU_PROVIDER
    return onnxruntime.InferenceSession(graph, providers=[(provider.name, dict(provider.options))])


def _measure_session(graph: Path, device: str, seconds: float) -> float:
    """Images a second of the session alone, with inputs and outputs in the host's memory."""
    session = _open_session(graph, device)
    images = np.zeros((BATCH_IMAGES, *session.get_inputs()[0].shape[1:]), np.uint8)
    for _ in range(3):
        session.run(["scores"], {"images": images})
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        session.run(["scores"], {"images": images})
        count += BATCH_IMAGES
    return count / (time.perf_counter() - began)


def _serve(
    net: str,
    graph: Path,
    options: argparse.Namespace,
    environment: dict[str, str],
    served: str = "",
) -> Results:
    server, spec = servers.ours(served or net, options.device), networks.NETS[net].spec
    single = server.ask(bodies.draw_picture(spec.height, spec.width, "PNG"), "image/png")
    images = np.random.default_rng(1).integers(0, 256, (BODY_IMAGES, *spec.shape), dtype=np.uint8)
    many = bodies.npy(single.path, images, both_ways=True)
    environment |= {
        "AE_MAX_BODY_BYTES": str(2**28),
        "AE_MAX_QUEUED_BYTES": str(2**31),
        "AE_MAX_QUEUED_IMAGES": "4096",
    }
    cores = sorted(os.sched_getaffinity(0))
    with servers.run(server, Path(sys.executable), single, cores, **environment) as running:
        scores = np.array(servers.parse_scores(load.send(many, PORT)))
        few = images[:BATCH_IMAGES]
        expected = _open_session(graph, "cpu").run(["scores"], {"images": few})[0]
        load.run(many, PORT, 4, 1.0)
        through = load.run(many, PORT, 4, options.seconds)
        before = _read_batches()
        load.run(single, PORT, 64, options.seconds)
        after = _read_batches()
        results = {
            "images a second": through.rate * BODY_IMAGES,
            "requests a second": (after[1] - before[1]) / options.seconds,
            "mean batch": (after[1] - before[1]) / (after[0] - before[0]),
            "largest difference": float(np.abs(scores[: len(few)] / expected - 1).max()),
            "ready after": running.ready_after,
            "MB": running.pss(),
        }
        if shutil.which("nvidia-smi") and options.device == "cuda":
            command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results["GPU MB"] = float(printed.splitlines()[0])
    return results


def _read_batches() -> tuple[float, float]:
    """Number of batches that have run, and number of images in them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics") as response:
        text = response.read().decode()
    count, total = (
        sum(
            float(value)
            for value in re.findall(rf"^ae_batch_images_{kind}\{{.*\}} (\S+)$", text, re.MULTILINE)
        )
        for kind in ("count", "sum")
    )
    return count, total


if __name__ == "__main__":
    main()
