"""HTTP/1.1 on a connection, each small answer sent with one call to the system."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SMALL = 16 * 1024  # bytes that are copied sooner than sent by themselves


class Gathered:
    """A transport that keeps what is written until `flush`, `close` or the next turn of the event loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._kept: list[bytes] = []
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if len(data) > SMALL:
            self.flush()
            self._transport.write(data)
            return
        if not self._kept:
            self._loop.call_soon(self.flush)
        self._kept.append(data)

    def flush(self) -> None:
        kept, self._kept = self._kept, []
        if kept and not self.is_closing():
            self._transport.write(b"".join(kept))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """uvicorn's, which writes the head of an answer and its body one by one.

    A write costs a small request as much as its dispatch, and a client that gets the head alone wakes up in vain.
    """

    transport: Any

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Gathered(transport))  # type: ignore[arg-type]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # A body that ends after its answer has stopped uvicorn's timer, and nothing else would start it again.
        if (
            self.cycle.response_complete
            and not self.pipeline
            and self.timeout_keep_alive_task is None
        ):
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        self.transport.flush()
        super().on_response_complete()
