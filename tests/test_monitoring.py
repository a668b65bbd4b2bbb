"""Alert rules and dashboard name metrics that the service has."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import Expr, MatrixSelector, VectorSelector

from service.api import schemas
from tests.service.api.helpers import NPY, TINY, application, npy

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "deploy" / "monitoring"
GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboard.json").read_text())
SCRAPE_LABELS = {"job", "instance"}  # labels that Prometheus adds
GRAFANA = {"$__rate_interval": "5m", "$instance": ".*"}


def read_dashboard() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for variable, value in GRAFANA.items():
                query = query.replace(variable, value)
            yield panel["title"], query


QUERIES = [
    *((rule["alert"], rule["expr"]) for rule in RULES),
    *read_dashboard(),
]


@pytest.fixture(scope="module")
def metrics(models: Path) -> dict[str, set[str]]:
    """The labels of all metrics of a service that has seen every kind of request."""
    client, services = application(models, max_images=150, max_queued_images=300)
    image = {"images": [schemas.EXAMPLE_IMAGE]}
    pixels = np.random.default_rng(0).integers(0, 256, (100, 4, 6), dtype=np.uint8)
    with client:
        client.post(f"{TINY}/encode", json=image)
        client.post(f"{TINY}/anomaly-score", content=npy(pixels), headers=NPY)
        with services.admission.admit(300):
            client.post(f"{TINY}/encode", json=image)
        text = client.get("/metrics").text
    labels: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels[sample.name] |= set(sample.labels)
    assert "# TYPE ae_latent_psi gauge" in text  # without a sample: tiny has no latent distances
    return {"up": set(), "ae_latent_psi": labels["ae_score_psi"], **labels}


def find_selectors(query: str) -> list[VectorSelector]:
    selectors = []

    def visit(expression: Expr) -> None:
        if isinstance(expression, VectorSelector):
            selectors.append(expression)
        if isinstance(expression, MatrixSelector):
            selectors.append(expression.vector_selector)

    promql_parser.walk(promql_parser.parse(query), visit)
    return selectors


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_query_names_metrics_and_labels_that_exist(
    metrics: dict[str, set[str]], title: str, query: str
) -> None:
    selectors = find_selectors(query)
    assert selectors, title
    for selector in selectors:
        assert selector.name in metrics, title
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= metrics[selector.name] | SCRAPE_LABELS, title


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_a_summary_names_labels_that_exist(metrics: dict[str, set[str]], rule: Any) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    labels = [metrics[str(each.name)] for each in find_selectors(rule["expr"])]
    assert named <= set().union(*labels) | SCRAPE_LABELS


def test_every_alert_is_tested_both_ways_and_explained() -> None:
    tests = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    raised: dict[str, set[bool]] = defaultdict(set)
    for each in tests:
        for expected in each["alert_rule_test"]:
            raised[expected["alertname"]].add(bool(expected.get("exp_alerts")))
    for rule in RULES:
        assert raised[rule["alert"]] == {True, False}, rule["alert"]
        assert re.search(rf"^\| [^|]*`{rule['alert']}`[^|]* \|", GUIDE, re.MULTILINE)
