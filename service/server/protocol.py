"""HTTP/1.1 protocol of a connection, which sends a small response with one system call."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_BUFFERED_BYTES = 16 * 1024  # larger writes are not copied


class BufferedTransport:
    """A transport that buffers small writes until `flush`, `close` or the next loop iteration."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Buffer the data; send it at once if it is large."""
        if len(data) > MAX_BUFFERED_BYTES:
            self.flush()
            self._transport.write(data)
            return
        if not self._chunks:
            self._loop.call_soon(self.flush)
        self._chunks.append(data)

    def flush(self) -> None:
        """Send the buffered data, unless the transport is closing."""
        chunks, self._chunks = self._chunks, []
        if chunks and not self.is_closing():
            self._transport.write(b"".join(chunks))

    def close(self) -> None:
        """Send the buffered data, and close the transport."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BufferedProtocol(HttpToolsProtocol):
    """The protocol of uvicorn, with the head and body of a response in one write.

    A write costs a small request as much as its dispatch, and a separate head wakes the client
    twice.
    """

    transport: Any

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(BufferedTransport(transport))  # type: ignore[arg-type]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # A body that ends after its response stops uvicorn's timer, which only this restarts.
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
