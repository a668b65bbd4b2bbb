"""Inference: devices, sessions of graphs, and chains of sessions."""

import os

# Official builds of ONNX Runtime send telemetry to Microsoft unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
