"""HTTP/1.1 protocol of a connection: limits, timeouts, and one write for a small response."""

import asyncio
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.asgi import build_extension
from service.server.connections import Connections
from service.server.limits import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    Refusal,
    ServedApp,
    find_refusal,
    refuse_header,
    refuse_target,
)

MAX_BUFFERED_BYTES = 16 * 1024  # larger writes are not copied
_MALFORMED = Refusal(400, "malformed_request", "the request is not HTTP/1.1")


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


class BoundedProtocol(HttpToolsProtocol):
    """The protocol of uvicorn within limits, with head and body of a response in one write.

    A write costs a small request as much as its dispatch, and a separate head wakes the client
    twice. A request to upgrade is handled as if it did not ask for it (RFC 9110, section 7.8).
    """

    transport: Any

    def __init__(
        self,
        config: Config,
        *arguments: Any,
        connections: Connections,
        served: ServedApp,
        **more: Any,
    ) -> None:
        super().__init__(config, *arguments, **more)
        self._connections, self._served = connections, served
        self._refusal: Refusal | None = None
        self._messages = self._head_bytes = self._header_bytes = self._header_count = 0
        self._refused = False  # what still arrives is ignored
        self._receiving = False  # a part of a request
        self._in_head = True  # or between requests; False from the head to the end of the body
        self.since = self.loop.time()  # of this state
        self._unsent, self._sent_at = 0, self.since

    @property
    def busy(self) -> bool:
        """True while a request is handled."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(BufferedTransport(transport))  # type: ignore[arg-type]
        if not self._connections.add(self):
            self.app = self._served.probes_only

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def end(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def check(self, now: float) -> None:
        """End the connection if the client sends a head, or takes a response, too slowly."""
        limits = self._connections.limits
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._sent_at = now
        self._unsent = unsent
        if unsent and now > self._sent_at + limits.send_timeout:
            self.end()
        elif self.busy or self.timeout_keep_alive_task is not None:
            return
        elif now > self.since + limits.head_timeout:
            if self._in_head and self._receiving and not self._refused:
                detail = f"the head was not complete after {limits.head_timeout:g} s"
                self._refuse(Refusal(408, "request_timeout", detail))
            else:
                self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._begin_to_receive()
        self._unset_keepalive_if_required()
        before = self._messages
        try:
            self.parser.feed_data(data)
            if self._receiving and self._in_head and self._messages == before:
                self._head_bytes += len(data)  # also of a header that is not complete
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._refuse(refuse_header())
        except httptools.HttpParserUpgrade as upgrade:
            self._feed_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:  # also for what is raised in a callback
            self._refuse(self._refusal or _MALFORMED)

    def _begin_to_receive(self) -> None:
        if not self._receiving:
            self._receiving, self.since = True, self.loop.time()

    def _feed_without_upgrade(self, rest: bytes) -> None:
        """Parse the head again without what asks for another protocol, and what follows it."""
        version = self.parser.get_http_version()
        head = [f"{self.scope['method']} ".encode(), self.url, f" HTTP/{version}\r\n".encode()]
        for name, value in self.headers:
            if name not in (b"upgrade", b"connection"):
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def _refuse(self, refusal: Refusal) -> None:
        """Respond to a head that is refused, unless another response is due, and close.

        The client may still send, and would lose the response if the connection closed at once.
        """
        if self.busy or self.transport.is_closing():
            self.transport.close()
            return
        self._refused, self.since = True, self.loop.time()
        headers, body = self._served.refuse(refusal)
        lines = [(b"connection", b"close"), *headers]
        head = [STATUS_LINE[refusal.status], *(b"%s: %s\r\n" % line for line in lines), b"\r\n"]
        self.transport.write(b"".join([*head, body]))
        self.transport.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_to_receive()
        self._messages += 1
        self._head_bytes = self._header_bytes = self._header_count = 0
        self.scope["extensions"] = build_extension(self.flow.drain)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_LINE_BYTES:
            self._refusal = refuse_target()
            raise self._refusal

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        size = len(name) + len(value)
        self._header_count += 1
        self._header_bytes += size
        if (
            size > MAX_LINE_BYTES
            or self._header_count > MAX_HEADERS
            or self._header_bytes > MAX_HEAD_BYTES
        ):
            self._refusal = refuse_header(size, self._header_count)
            raise self._refusal

    def on_headers_complete(self) -> None:
        method = self.parser.get_method().decode("ascii")
        self._refusal = find_refusal(self.parser.get_http_version(), method, self.headers)
        if self._refusal:
            raise self._refusal
        self.scope["method"] = method
        if not self.parser.should_upgrade():
            self._in_head = False
            self.since = self.loop.time()
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._in_head, self._receiving = True, False
        self.since = self.loop.time()
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
