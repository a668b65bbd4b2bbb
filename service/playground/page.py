"""Routes of the playground: its page, and the files that the page loads."""

from pathlib import Path
from typing import Any

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
PAGE = "index.html"
HEADERS = {
    # Images of the user are blobs, pictures of responses are data.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # an update of the service updates its page
}


class _Files(StaticFiles):
    """The files of the page, with its headers."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response


def build_routes() -> list[BaseRoute]:
    """Return the routes of the page and of its files, which need nothing from elsewhere."""
    files = _Files(directory=STATIC)
    return [
        Route("/", GZipMiddleware(_send_page), methods=["GET"]),
        Mount("/playground", GZipMiddleware(files)),
    ]


async def _send_page(scope: Scope, receive: Receive, send: Send) -> None:
    await FileResponse(STATIC / PAGE, headers=HEADERS)(scope, receive, send)
