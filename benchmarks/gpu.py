"""The service on an NVIDIA GPU: over the bare CUDA session, over the device's limits, and with each option.

    python -m benchmarks.gpu [--device cuda] [--seconds 3] [--output docs/results/gpu.json]

With `--device cpu` the same is measured on the CPU, which tries the command where there is no GPU. For each network
and each option it tells images a second through HTTP (256 images in an npy body, 4 connections), those of the bare
session fed from the host's memory in batches of 64, the mean size of a batch of single-image requests at 64
connections, the largest difference of a score from the CPU's, the seconds until ready, and memory.
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
BATCH, BODY = 64, 256  # images of a run, and of a request
OPTIONS: dict[str, dict[str, str]] = {
    "default": {},
    "CUDA graphs": {"AE_CUDA_GRAPHS": "true"},
    "TF32": {"AE_TF32": "true"},
    "batches of 256": {"AE_MAX_BATCH_SIZE": "256"},
}
# Peak rates that NVIDIA states: operations a second in float32 without tensor cores, and bytes a second of memory.
PEAKS = {"H100": (67e12, 3.35e12), "H200": (67e12, 4.8e12)}
Figures = dict[str, Any]


def main() -> None:
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
    device = _name(options.device)
    print(device)
    models = (options.work / "models").resolve()
    results: Figures = {"device": device}
    for net in networks.NETS:
        graph = networks.write(net, models)
        results[net] = {
            "limit": _limit(net, device),
            "bare": _bare(graph, options.device, options.seconds),
        }
        print(
            f"{net}: bare session {results[net]['bare']:,.0f} images a second; by its peaks {results[net]['limit']}"
        )
        for name, environment in OPTIONS.items() if options.device == "cuda" else [("default", {})]:
            results[net][name] = _told(
                name, _serve(net, graph, options, environment | {"AE_MODELS": str(models)})
            )
        found = _serve(
            net, graph, options, {"AE_MODELS": str(models)}, served=networks.write_fp16(net, models)
        )
        results[net]["half precision"] = _told("half precision", found)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


def _told(name: str, found: Figures) -> Figures:
    print(
        f"  {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True
    )
    return found


def _name(device: str) -> str:
    if device == "cpu":
        return f"CPU, {os.cpu_count()} cores"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[
        0
    ]


def _limit(net: str, device: str) -> Figures:
    """Images a second that the device's peak rates would allow: operations over rate, and bytes over bandwidth."""
    spec = networks.NETS[net].spec
    model = build(networks.NETS[net].architecture, spec)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.decode(model.encode(torch.zeros(1, spec.channels, spec.height, spec.width)).mean)
    operations, moved = counter.get_total_flops(), spec.channels * spec.height * spec.width
    peak = next((rates for name, rates in PEAKS.items() if name in device), None)
    found: Figures = {"operations": operations, "bytes in": moved}
    return (
        found | {"by operations": peak[0] / operations, "by bytes": peak[1] / moved}
        if peak
        else found
    )


def _session(graph: Path, device: str) -> onnxruntime.InferenceSession:
    inspect_machine()  # loads the libraries of CUDA
    provider = build_cuda_provider(GPU_DEFAULTS) if device == "cuda" else CPU_PROVIDER
    return onnxruntime.InferenceSession(graph, providers=[(provider.name, dict(provider.options))])


def _bare(graph: Path, device: str, seconds: float) -> float:
    """Images a second of the session alone, from arrays in the host's memory to arrays there."""
    session = _session(graph, device)
    images = np.zeros((BATCH, *session.get_inputs()[0].shape[1:]), np.uint8)
    for _ in range(3):
        session.run(["scores"], {"images": images})
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        session.run(["scores"], {"images": images})
        count += BATCH
    return count / (time.perf_counter() - began)


def _serve(
    net: str,
    graph: Path,
    options: argparse.Namespace,
    environment: dict[str, str],
    served: str = "",
) -> Figures:
    server, spec = servers.ours(served or net, options.device), networks.NETS[net].spec
    single = server.ask(bodies.picture(spec.height, spec.width, "PNG"), "image/png")
    images = np.random.default_rng(1).integers(0, 256, (BODY, *spec.shape), dtype=np.uint8)
    many = bodies.npy(single.path, images, both_ways=True)
    environment |= {
        "AE_MAX_BODY_BYTES": str(2**28),
        "AE_MAX_QUEUED_BYTES": str(2**31),
        "AE_MAX_QUEUED_IMAGES": "4096",
    }
    cores = sorted(os.sched_getaffinity(0))
    with servers.running(server, Path(sys.executable), single, cores, **environment) as running:
        scores = np.array(servers.scores(load.ask(many, PORT)))
        expected = _session(graph, "cpu").run(["scores"], {"images": images[:BATCH]})[0]
        load.run(many, PORT, 4, 1.0)
        through = load.run(many, PORT, 4, options.seconds)
        before = _batches()
        load.run(single, PORT, 64, options.seconds)
        after = _batches()
        found = {
            "images a second": through.rate * BODY,
            "requests a second": (after[1] - before[1]) / options.seconds,
            "mean batch": (after[1] - before[1]) / (after[0] - before[0]),
            "largest difference": float(np.abs(scores[:BATCH] / expected - 1).max()),
            "ready after": running.ready_after,
            "MB": running.pss(),
        }
        if shutil.which("nvidia-smi") and options.device == "cuda":
            command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found["GPU MB"] = float(said.splitlines()[0])
    return found


def _batches() -> tuple[float, float]:
    """How many batches have run, and how many images in them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics") as answer:
        text = answer.read().decode()
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
