"""Routes of the playground: its page, and the files that the page loads."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

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


def build_router() -> APIRouter:
    """Return the route of the page."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def show_page() -> FileResponse:
        return FileResponse(STATIC / PAGE, headers=HEADERS)

    return routes


def build_files() -> ASGIApp:
    """Return the files of the page, which need nothing from elsewhere."""
    return GZipMiddleware(_Files(directory=STATIC))
