"""Kernels of onnxruntime-gpu's CUDA provider, and its placement of nodes; see cuda-kernels."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

TABLE = Path(__file__).parents[1] / "training" / "export" / "cuda_kernels.json"
OPSET = 20  # of exported graphs
CUDA = "CUDAExecutionProvider"
TENSOR = re.compile(r"tensor\((.*)\)")
LAST_VERSION = 2**31 - 1  # of a kernel without one
# The session cannot be opened without a device, but it logs its placement before it fails.
OPEN_SESSION = """
import sys, onnxruntime
onnxruntime.preload_dlls()
options = onnxruntime.SessionOptions()
options.log_severity_level = 0
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CUDAExecutionProvider"])
"""
PLACEMENT = re.compile(r"VerifyEachNodeIsAssignedToAnEp\] +(.*)")


def list_kernels() -> None:
    """Write the kernels of each operator: first version, last version or null, types."""
    onnxruntime.preload_dlls()
    kernels: dict[str, dict[str, None]] = defaultdict(dict)
    for kernel in state.get_all_opkernel_def():
        first, last = kernel.version_range
        if kernel.provider == CUDA and kernel.domain == "" and last >= OPSET:
            types = {name: join_types(each) for name, each in kernel.type_constraints.items()}
            row = [first, None if last == LAST_VERSION else last, types]
            kernels[kernel.op_name][json.dumps(row, sort_keys=True)] = None
    version = json.dumps(onnxruntime.__version__)
    table = ",\n  ".join(
        f"{json.dumps(name)}: [\n   " + ",\n   ".join(kernels[name]) + "\n  ]"
        for name in sorted(kernels)
    )
    TABLE.write_text(f'{{\n "onnxruntime": {version},\n "kernels": {{\n  {table}\n }}\n}}\n')


def join_types(types: list[str]) -> str:
    """Join the types of tensors, without those of sequences."""
    names = (TENSOR.fullmatch(each) for each in types)
    return " ".join(name[1] for name in names if name)


def print_placement(graph: str) -> None:
    """Print how many nodes are placed on which provider, and which ones on the CPU."""
    opened = subprocess.run(
        [sys.executable, "-c", OPEN_SESSION, graph], capture_output=True, text=True
    )
    lines = PLACEMENT.findall(opened.stderr)
    if not lines:
        sys.exit(opened.stderr)
    provider = ""
    for line in lines[1:]:
        if "placed on" in line:
            provider = line
            print(f"{graph}: {line}")
        elif "[CPU" in provider:
            print(f"  {line}")


if __name__ == "__main__":
    if sys.argv[1] == "list":
        list_kernels()
    for argument in sys.argv[2:]:
        print_placement(argument)
