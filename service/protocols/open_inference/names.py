"""Names of models in the Open Inference Protocol: NAME, or NAME.OPERATION."""

from typing import NamedTuple

from bundle.manifest import Capability
from service.errors import OperationNotSupported
from service.protocols.open_inference.operations import DEFAULT, SERVED
from service.registry.registry import ModelRegistry
from service.registry.served_model import ServedModel


class Target(NamedTuple):
    """The model and the operation that a name means."""

    model: str
    operation: Capability


def resolve(registry: ModelRegistry, name: str) -> Target:
    """Return the target of a name; a model's own name comes before NAME.OPERATION."""
    base, _, suffix = name.rpartition(".")
    for operation in SERVED:
        if base and operation == suffix and not registry.exists(name):
            return Target(base, operation)
    return Target(name, DEFAULT)


def get(registry: ModelRegistry, target: Target, version: str | None) -> ServedModel:
    """Return the model of a target, or a version of it.

    Raises as `ModelRegistry.get` does, and OperationNotSupported.
    """
    model = registry.get(target.model, version)
    if target.operation not in model.manifest.capabilities:
        supported = ", ".join(f"{target.model}.{each}" for each in model.manifest.capabilities)
        raise OperationNotSupported(
            f"{target.model} has no operation {target.operation!r}; there are: {supported}"
        )
    return model
