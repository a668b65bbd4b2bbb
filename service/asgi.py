"""ASGI extension of the server: the wait until a client has taken its response."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

SENT = "service.sent"


def build_extension(wait: Callable[[], Awaitable[None]]) -> dict[str, dict[object, object]]:
    """Return the extension for the scope of a request."""
    return {SENT: {"wait": wait}}


async def wait_until_sent(scope: MutableMapping[str, Any]) -> None:
    """Wait until the client has taken nearly all of the response, if the server can tell."""
    if extension := scope.get("extensions", {}).get(SENT):
        await extension["wait"]()
