"""The example of a Kubernetes Job that scores in shards."""

from pathlib import Path

import yaml

JOB = Path(__file__).parents[1] / "deploy" / "kubernetes" / "score-job.yaml"


def test_the_job_has_an_index_for_each_shard() -> None:
    claim, job = yaml.safe_load_all(JOB.read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["enableServiceLinks"] is False
    assert container["resources"]["limits"]["cpu"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert f"--shard=$(JOB_COMPLETION_INDEX)/{job['spec']['completions']}" in container["args"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
