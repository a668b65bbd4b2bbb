"""Documentation page of the API."""

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

# The page holds an inline script, and needs nothing from elsewhere.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

PARAMETERS = {  # of Swagger UI
    "docExpansion": "list",
    "defaultModelsExpandDepth": 0,  # the list of schemas is folded
    "defaultModelExpandDepth": 3,
    "displayRequestDuration": True,
    "persistAuthorization": False,  # the API key is only in memory
    "tryItOutEnabled": True,
}


def build_assets() -> StaticFiles:
    """Return Swagger UI's script, style and icon from its package; nothing is loaded remotely."""
    return StaticFiles(packages=[("fastapi_swagger", "resources")])


def build_router() -> APIRouter:
    """Return the route of the page."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        def asset(name: str) -> str:
            return _build_path(request, "swagger", path=name)

        page = get_swagger_ui_html(
            openapi_url=_build_path(request, "openapi"),
            title=f"API of the {request.app.title.lower()}",
            swagger_js_url=asset("swagger-ui-bundle.js"),
            swagger_css_url=asset("swagger-ui.css"),
            swagger_favicon_url=asset("favicon-32x32.png"),
            swagger_ui_parameters=PARAMETERS,
        )
        # Screen readers need the language, which FastAPI's page does not name.
        html = bytes(page.body).replace(b"<html>", b'<html lang="en">', 1)
        return HTMLResponse(html, headers=PAGE_HEADERS)

    return routes


def build_redirect() -> APIRouter:
    """Return a redirect from the root to the page."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def root(request: Request) -> RedirectResponse:
        return RedirectResponse(_build_path(request, "docs"))

    return routes


def _build_path(request: Request, name: str, **parameters: str) -> str:
    """Return the path of a named route, with the prefix of a proxy."""
    path = request.app.url_path_for(name, **parameters)
    return f"{request.scope.get('root_path', '')}{path}"
