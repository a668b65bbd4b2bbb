"""Route of the metrics for Prometheus."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.workers import Totals

TEXT = {"schema": {"type": "string"}, "example": "ae_ready_workers 1.0\n"}


def build_router(totals: Totals) -> APIRouter:
    """Return the route of the metrics."""
    routes = APIRouter()

    @routes.get(
        "/metrics",
        summary="Read the metrics",
        response_class=Response,
        responses={200: {"description": "The metrics.", "content": {"text/plain": TEXT}}},
    )
    async def get_metrics() -> Response:
        """Read the metrics for Prometheus: requests, errors, batches, scores, drift and memory.

        With several workers, the metrics are of all. With API keys, a key needs the right
        `metrics`.

        Likely errors: 401 without a valid key, 403 if the key lacks the right.
        """
        return Response(await totals.export(), media_type=CONTENT_TYPE_LATEST)

    return routes
