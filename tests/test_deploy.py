"""The chart and the manifests of Kubernetes agree with the service and with each other."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from service import VERSION
from service.settings import Settings, find_unknown
from tests.service.api.helpers import application

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy" / "kubernetes"
CHART = DEPLOY / "chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
(RUNTIME,) = yaml.safe_load((DEPLOY / "kserve" / "servingruntime.yaml").read_text())["spec"][
    "containers"
]
INFERENCE_SERVICES = [
    yaml.safe_load(path.read_text()) for path in sorted(DEPLOY.glob("kserve/inference*.yaml"))
]
REFUSED = {"AE_UNIX_SOCKET", "AE_API_KEYS"}  # a Service needs a port; keys are a Secret
PATHS = {  # by the part that decides the replica
    "/v1/models/cookies/anomaly-score?heatmap=true": "cookies",
    "/v1/models/cookies/versions/2/encode": "cookies",
    "/v1/models/cookies?x=1.5": "cookies",
    "/v2/models/cookies.anomaly-score/infer": "cookies",
    "/v2/models/cookies/versions/1/infer": "cookies",
    "/v2/models/mnist-latent2.sample/infer": "mnist-latent2",
}


def find_keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The names of all values that the chart itself defines."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from find_keys(value, f"{prefix}{key}.")


def find_properties(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in schema.get("properties", {}).items():
        yield f"{prefix}{key}"
        yield from find_properties(value, f"{prefix}{key}.")


def find_closed(schema: dict[str, Any]) -> Iterator[bool]:
    """Yield True for each object with named properties that refuses others, else False."""
    if "properties" in schema:
        yield schema.get("additionalProperties") is False
        for each in schema["properties"].values():
            yield from find_closed(each)


def read_environment(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


def find_probes(container: dict[str, Any]) -> list[str]:
    names = ("startupProbe", "livenessProbe", "readinessProbe")
    return [container[name]["httpGet"]["path"] for name in names]


def test_the_schema_accepts_the_default_values() -> None:
    jsonschema_rs.meta.validate(SCHEMA)
    jsonschema_rs.validate(SCHEMA, VALUES)


def test_the_schema_knows_each_value_and_refuses_others() -> None:
    known = set(find_properties(SCHEMA))
    free = ("resources.requests.", "resources.limits.")
    defined = {key for key in find_keys(VALUES) if not key.startswith(free)}
    assert known == defined | {"global"}
    assert all(find_closed(SCHEMA))
    assert not jsonschema_rs.is_valid(SCHEMA, VALUES | {"replica": 1})


def test_each_value_is_used() -> None:
    assert [
        key for key in VALUES if f".Values.{key}" not in TEMPLATES and f'"{key}"' not in TEMPLATES
    ] == []


def test_the_chart_names_settings_that_exist() -> None:
    named = set(re.findall(r"\bAE_[A-Z_0-9]+\b", TEMPLATES))
    assert len(named) > 10
    assert find_unknown(named) == []


def test_the_chart_refuses_each_setting_that_it_sets() -> None:
    variables, reserved = (
        set(re.findall(r"^(AE_\w+):", block, re.MULTILINE))
        for block in re.findall(
            r'define "autoencoder\.(?:variables|reserved)" -}}(.*?)\{\{- end -}}\n', TEMPLATES, re.S
        )
    )
    assert reserved == variables | REFUSED


def test_the_default_values_are_those_of_the_service() -> None:
    settings = Settings()
    assert VALUES["service"]["port"] == settings.port
    assert VALUES["gracePeriodSeconds"] == settings.grace_period
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == VERSION


def test_the_chart_runs_the_image_of_the_compose_file_as_its_user() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for service, tag in (("autoencoder", "cpu"), ("autoencoder-gpu", "cuda")):
        assert services[service]["image"] == f"{VALUES['image']['repository']}:{tag}"
    (user,) = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f"runAsUser: {user}" in TEMPLATES
    assert RUNTIME["securityContext"]["runAsUser"] == int(user)


def test_the_chart_has_the_alerts_and_the_dashboard_of_the_monitoring() -> None:
    monitoring = ROOT / "deploy" / "monitoring"
    assert (CHART / "files" / "alerts.yml").samefile(monitoring / "alerts.yml")
    assert (CHART / "files" / "dashboard.json").samefile(monitoring / "grafana" / "dashboard.json")


def test_the_probes_ask_for_paths_that_the_service_has(models: Path) -> None:
    probes = set(re.findall(r"httpGet: \{path: ([^,]+),", TEMPLATES))
    assert probes == set(find_probes(RUNTIME))
    client, _ = application(models)
    with client:
        assert {client.get(path).status_code for path in probes} == {200}


@pytest.mark.parametrize(
    "service", INFERENCE_SERVICES, ids=lambda each: str(each["metadata"]["name"])
)
def test_the_service_accepts_the_settings_of_kserve(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = service["spec"]["predictor"]["model"]
    environment = read_environment(RUNTIME) | (read_environment(model) if "env" in model else {})
    assert find_unknown(environment) == []
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.models, settings.port) == ("/mnt/models", 8080)
    ports = {port["containerPort"] for port in model.get("ports", [])}
    assert ports == {settings.grpc_port} - {None}


@pytest.mark.parametrize(("path", "model"), PATHS.items())
def test_paths_are_placed_by_their_model(path: str, model: str) -> None:
    envoy = (DEPLOY / "placement" / "envoy.yaml").read_text()
    (pattern,) = re.findall(r'pattern: \{regex: "(.*)"\}', envoy)
    assert re.sub(pattern, r"\1", path) == model
    ingress = yaml.safe_load((DEPLOY / "placement" / "ingress-nginx.yaml").read_text())
    rule = ingress["spec"]["rules"][0]["http"]["paths"][0]["path"]
    found = re.match(rule, path.split("?")[0])
    assert found is not None
    assert found[1] == model


def test_the_router_selects_the_replicas_of_the_chart() -> None:
    replicas, *_ = yaml.safe_load_all((DEPLOY / "placement" / "envoy.yaml").read_text())
    assert replicas["spec"]["selector"] == {
        "app.kubernetes.io/name": yaml.safe_load((CHART / "Chart.yaml").read_text())["name"],
        "app.kubernetes.io/instance": "autoencoder",
    }
