"""Open Inference Protocol, version 2, over gRPC, on a port of its own.

Each call becomes the HTTP request under /v2 that it equals (`transcoding`), and passes through the
same application: keys, limits, queue, batches, errors, metrics, log and traces are the same.
"""

from service.protocols.open_inference_grpc.server import GrpcLimits, GrpcServer
from service.protocols.open_inference_grpc.transcoding import Transcoder

__all__ = ["GrpcLimits", "GrpcServer", "Transcoder"]
