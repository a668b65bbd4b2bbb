"""Services that need no key: health, and reflection of the methods and messages."""

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from bundle.errors import DomainError
from service.protocols.open_inference_grpc.call import Reads

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
MAX_READS, READ_SECONDS = 4, 10.0  # few, because a message may have the bytes of an inference
MAX_QUESTIONS = 100  # of one stream of reflection


def build_probes(
    service: str, services: Iterable[str], is_ready: Callable[[], bool]
) -> list[grpc.GenericRpcHandler]:
    """Return the handlers of `Check` and `ServerReflectionInfo`; `Watch` is not served."""
    reads = Reads(READ_SECONDS, MAX_READS)
    reflected = reflection.ReflectionServicer(services)

    async def check(_: object, context: Any) -> None:
        request = await _receive(reads, context, health_pb2.HealthCheckRequest())
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is missing")
        elif request.service not in ("", service):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {request.service[:100]!r}")
        states = health_pb2.HealthCheckResponse
        response = states(status=states.SERVING if is_ready() else states.NOT_SERVING)
        await context.write(response.SerializeToString())

    async def reflect(_: object, context: Any) -> None:
        for _ in range(MAX_QUESTIONS):
            request = reflection_pb2.ServerReflectionRequest()
            request = await _receive(reads, context, request)
            if request is None:
                return
            for response in reflected.ServerReflectionInfo([request], context):
                await context.write(response.SerializeToString())

    return [
        _build_handler(HEALTH, "Check", check),
        _build_handler(reflection.SERVICE_NAME, "ServerReflectionInfo", reflect),
    ]


async def _receive(reads: Reads, context: Any, message: Message) -> Any:
    """Return a message, or None if there is none; end the call if it is late or invalid."""
    try:
        content = await reads.read(context)
        if content is None:
            return None
        message.ParseFromString(content)
    except (DomainError, DecodeError) as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    return message


def _build_handler(service: str, method: str, handle: Any) -> grpc.GenericRpcHandler:
    handler = grpc.stream_stream_rpc_method_handler(handle)
    return grpc.method_handlers_generic_handler(service, {method: handler})
