"""Inference: devices, sessions of graphs, and chains of sessions."""

import os

# Official builds of ONNX Runtime send telemetry to Microsoft unless this is set before the import.
TELEMETRY = "ORT_DISABLE_TELEMETRY"
os.environ.setdefault(TELEMETRY, "1")
