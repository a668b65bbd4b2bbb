from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles


def assets() -> StaticFiles:
    """Swagger UI's script, style and icon, from the package that ships them: nothing is loaded from elsewhere."""
    return StaticFiles(packages=[("fastapi_swagger", "resources")])


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        def asset(name: str) -> str:
            return request.url_for("swagger", path=name).path

        return get_swagger_ui_html(
            openapi_url=request.url_for("openapi").path,
            title="Autoencoder service",
            swagger_js_url=asset("swagger-ui-bundle.js"),
            swagger_css_url=asset("swagger-ui.css"),
            swagger_favicon_url=asset("favicon-32x32.png"),
        )

    @routes.get("/")
    async def root(request: Request) -> RedirectResponse:
        return RedirectResponse(request.url_for("docs").path)

    return routes
