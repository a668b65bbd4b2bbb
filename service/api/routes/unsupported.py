from typing import Annotated

from fastapi import APIRouter, Depends

from service.api.dependencies import Target
from service.errors import OperationNotSupported
from service.registry import LoadedModel


def router(target: Target) -> APIRouter:
    """The last of a model's routes: operations that no model here has."""
    routes = APIRouter(include_in_schema=False)

    @routes.post("/{operation}")
    async def unsupported(operation: str, model: Annotated[LoadedModel, Depends(target)]) -> None:
        manifest = model.manifest
        raise OperationNotSupported(
            f"{manifest.name} has no operation {operation!r}; it can: {', '.join(manifest.capabilities)}"
        )

    return routes
