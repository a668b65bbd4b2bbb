"""JSON schemas of custom resources, from the models of KServe's and Prometheus operator's SDKs."""

import re
from functools import cache
from typing import Any

import kserve.models
import kubernetes.client
from cloudcoil.models.prometheus_operator import v1 as prometheus

Schema = dict[str, Any]

SIMPLE: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string"},
    "object": {},
}


@cache
def load_schemas() -> dict[str, Schema]:
    """Return the schemas by kind. They refuse properties that the kind does not have."""
    kserve_kinds = {
        "InferenceService": "V1beta1InferenceService",
        "ServingRuntime": "V1alpha1ServingRuntime",
        "ClusterServingRuntime": "V1alpha1ClusterServingRuntime",
    }
    operator_kinds = {
        "ServiceMonitor": prometheus.ServiceMonitor,
        "PrometheusRule": prometheus.PrometheusRule,
    }
    return {kind: _convert_class(name) for kind, name in kserve_kinds.items()} | {
        kind: _close(model.model_json_schema(by_alias=True))
        for kind, model in operator_kinds.items()
    }


def _convert_class(name: str) -> Schema:
    """Return a schema with the classes of a generated SDK as its definitions."""
    definitions: dict[str, Schema] = {}
    reference = _convert(name, definitions)
    return {**reference, "definitions": definitions}


def _convert(name: str, definitions: dict[str, Schema]) -> Schema:
    if name in SIMPLE:
        return SIMPLE[name]
    if found := re.fullmatch(r"[lL]ist\[(.+)\]", name):
        return {"type": "array", "items": _convert(found[1], definitions)}
    if found := re.fullmatch(r"[dD]ict[\[(]str, (.+)[\])]", name):
        return {"type": "object", "additionalProperties": _convert(found[1], definitions)}
    model = getattr(kserve.models, name, None) or getattr(kubernetes.client, name, None)
    if model is None:  # of Knative, in fields that are not used
        return {}
    if name not in definitions:
        definitions[name] = {}  # ends the recursion
        definitions[name] = {
            "type": "object",
            "properties": {
                model.attribute_map[attribute]: _convert(kind, definitions)
                for attribute, kind in model.openapi_types.items()
            },
            "additionalProperties": False,
        }
    return {"$ref": f"#/definitions/{name}"}


def _close(schema: Schema) -> Schema:
    """Refuse properties beyond those listed, in each object of a schema."""
    for part in (schema, *schema.get("$defs", {}).values()):
        if "properties" in part:
            part["additionalProperties"] = False
    return schema
