"""Server of gRPC: a port, its limits, and the calls of the service, of health and of reflection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
from grpc import aio
from grpc_reflection.v1alpha import reflection
from starlette.types import ASGIApp

from bundle.errors import InvalidParameter
from service.protocols.open_inference_grpc.call import Call, Reads
from service.protocols.open_inference_grpc.probes import HEALTH, build_probes
from service.protocols.open_inference_grpc.transcoding import SERVICE
from service.server.limits import MAX_HEAD_BYTES, ConnectionLimits
from service.server.uvicorn_server import Tls

MAX_STREAMS = 100  # calls of one connection at the same time
AGE_MILLISECONDS = 60_000  # after which a connection takes no more calls, and clients open another


@dataclass(frozen=True)
class GrpcLimits:
    """Limits of connections, bytes of a message, and seconds until it is complete.

    With `shared`, other processes may listen on the port too, and take a part of the calls.
    """

    connections: ConnectionLimits
    max_bytes: int
    message_timeout: float
    shared: bool = False

    @property
    def max_seconds(self) -> float:
        """The seconds of a call: its message, the wait until it runs, and its response."""
        return 2 * self.message_timeout + self.connections.send_timeout

    def list_options(self) -> list[tuple[str, Any]]:
        """Return the options of gRPC, which describes them in grpc_types.h."""
        return [
            ("grpc.so_reuseport", int(self.shared)),
            ("grpc.max_receive_message_length", self.max_bytes),  # also after decompression
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", MAX_HEAD_BYTES),
            ("grpc.absolute_max_metadata_size", MAX_HEAD_BYTES),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.max_allowed_incoming_connections", self.connections.max_connections),
            ("grpc.server_handshake_timeout_ms", round(self.connections.head_timeout * 1000)),
            ("grpc.max_connection_idle_ms", self.connections.idle_timeout * 1000),
            ("grpc.http2.bdp_probe", 0),  # else a message that nobody reads yet fills megabytes
            # Nothing else ends a call whose client does not take the response.
            ("grpc.max_connection_age_ms", AGE_MILLISECONDS),
            ("grpc.max_connection_age_grace_ms", round(self.max_seconds * 1000)),
        ]


class GrpcServer:
    """A server of gRPC beside that of HTTP, on the same event loop."""

    def __init__(
        self,
        app: ASGIApp,
        address: tuple[str, int],
        tls: Tls,
        limits: GrpcLimits,
        is_ready: Callable[[], bool],
    ) -> None:
        """Serve `app`, whose requests are calls, at a host and a port; port 0 picks a free port."""
        self._app, self._address, self._tls, self._limits = app, address, tls, limits
        self._is_ready = is_ready
        self._server: aio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises InvalidParameter if the address is invalid or taken."""
        limits = self._limits
        server = aio.server(
            options=limits.list_options(),
            maximum_concurrent_rpcs=limits.connections.max_connections,
        )
        services = [SERVICE, HEALTH, reflection.SERVICE_NAME]
        server.add_generic_rpc_handlers(
            [_Handlers(self._app, limits), *build_probes(SERVICE, services, self._is_ready)]
        )
        self._bind(server)
        await server.start()
        self._server = server

    async def stop(self, seconds: float) -> None:
        """Admit no more calls, and end those that run after so many seconds."""
        if self._server:
            await self._server.stop(seconds)

    def describe(self) -> str:
        """Return the address."""
        host, port = self._address
        return f"{'grpcs' if self._tls.certificate else 'grpc'}://{_join(host, port)}"

    def _bind(self, server: aio.Server) -> None:
        host, port = self._address
        try:
            if credentials := _load_credentials(self._tls):
                bound = server.add_secure_port(_join(host, port), credentials)
            else:
                bound = server.add_insecure_port(_join(host, port))
        except RuntimeError:
            raise InvalidParameter(
                f"{_join(host, port)} cannot be listened on for gRPC; choose another AE_GRPC_PORT"
            ) from None
        self._address = host, bound


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handlers of all methods of the service, also of those that are not served.

    All are handlers of streams, because one of single messages has received its message.
    """

    def __init__(self, app: ASGIApp, limits: GrpcLimits) -> None:
        self._app, self._reads = app, Reads(limits.message_timeout)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        if not path.startswith(f"/{SERVICE}/"):
            return None

        async def handle(_: object, context: Any) -> None:
            await Call(quote(path), context, self._reads).run(self._app)

        return grpc.stream_stream_rpc_method_handler(handle)


def _load_credentials(tls: Tls) -> grpc.ServerCredentials | None:
    if tls.certificate is None:
        return None
    key = (tls.key or tls.certificate).read_bytes()
    return grpc.ssl_server_credentials([(key, tls.certificate.read_bytes())])


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
