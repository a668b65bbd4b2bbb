"""Training autoencoders, and publishing them as bundles."""

import os

# The official builds of ONNX Runtime report to Microsoft unless told otherwise before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
