"""Route of the metrics for Prometheus."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.workers import Totals


def build_router(totals: Totals) -> APIRouter:
    """Return the route of the metrics."""
    routes = APIRouter()

    @routes.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )
    async def metrics() -> Response:
        """Requests, batches, scores, and images and bytes in flight, for Prometheus."""
        return Response(await totals.export(), media_type=CONTENT_TYPE_LATEST)

    return routes
