"""Server of the service: uvicorn in one process, with `BufferedProtocol`."""

from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import uvicorn

from service.server.protocol import BufferedProtocol


class Server(uvicorn.Server):
    """A server that calls `on_ready` with its URL once it listens, and `on_exit` on a signal."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[str], None], on_exit: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_ready, self._on_exit = on_ready, on_exit

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_exit()
        super().handle_exit(sig, frame)


def serve(
    app: Callable[..., Awaitable[None]],
    host: str,
    port: int,
    shutdown_timeout: int,
    on_ready: Callable[[str], None],
    on_exit: Callable[[], None],
) -> int:
    """Serve until a signal, and return the exit status.

    Running requests then have `shutdown_timeout` seconds to finish.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BufferedProtocol,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # because nothing uses the address of the client
        timeout_graceful_shutdown=shutdown_timeout,
    )
    server = Server(config, on_ready, on_exit)
    try:
        server.run()
    except KeyboardInterrupt:
        return 130
    return 0 if server.started else 1
