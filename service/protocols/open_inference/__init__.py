"""Open Inference Protocol, version 2, over HTTP, with Triton's binary tensors.

Sources: https://github.com/kserve/open-inference-protocol, and docs/protocol/ of the Triton
Inference Server (extension_binary_data.md, extension_model_repository.md).

A model's own name infers as `encode`. `NAME.OPERATION` is a model for each other operation.
"""

from service.protocols.open_inference.endpoint import build_routes
from service.protocols.open_inference.router import build_router

__all__ = ["build_router", "build_routes"]
