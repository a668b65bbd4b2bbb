from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.api.dependencies import ServicesDep


def router() -> APIRouter:
    routes = APIRouter()

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(services: ServicesDep) -> Response:
        """Requests, batches, and what is in flight, for Prometheus."""
        return Response(services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return routes
