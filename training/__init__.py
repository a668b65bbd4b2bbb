"""Training of autoencoders and detectors, and their publication as bundles."""

import os

# Official builds of ONNX Runtime report to Microsoft unless this is set before their import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
