import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from benchmarks import detectors, embeddings
from benchmarks.results import anomaly, runs, serving
from benchmarks.results.__main__ import render
from benchmarks.serving import load
from benchmarks.serving.load import Request
from training import recipe

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def make_run(seed: int, mse: float, *overrides: str) -> runs.Run:
    """A run of mnist-stacked."""
    made = recipe.load("mnist-stacked", [f"seed={seed}", *overrides], f"run-{seed}").model_dump(
        mode="json"
    )
    return {
        "seed": seed,
        "minutes": 2.0,
        "device": "CPU",
        "metrics": {"mse": mse, "pca_mse": 0.5},
        "recipe": made,
    }


def test_the_seeds_of_a_recipe_stand_together(tmp_path: Path) -> None:
    for seed, mse in ((1, 0.3), (0, 0.1), (0, 0.2)):
        runs.write("mnist-stacked", make_run(seed, mse), tmp_path / "models.json")
    assert [
        run["metrics"]["mse"] for run in runs.read(tmp_path / "models.json")["mnist-stacked"]
    ] == [0.2, 0.3]
    assert "MSE 0.250000 ± 0.070711" in render(tmp_path)


def test_runs_of_a_recipe_that_has_changed_are_not_counted_with_the_new_ones(
    tmp_path: Path,
) -> None:
    runs.write("mnist-stacked", make_run(1, 0.3, "training.epochs=2"), tmp_path / "models.json")
    row = "MSE {} | MSE 0.500000 |  | at most 0.0020 | 2.0 min, CPU, one run"
    assert f"{row.format('0.300000')}, with other settings" in render(tmp_path)
    runs.write("mnist-stacked", make_run(0, 0.1), tmp_path / "models.json")
    assert f"{row.format('0.100000')} |" in render(tmp_path)


def test_the_workers_section_compares_two_with_one() -> None:
    measured = {"rate": 1000.0, "cpu": 0.0008, "uss_megabytes": [41.2, 39.9]}
    ratios = {"rate, 2 workers to 1 worker": 1.9}
    part = {"1 worker": measured, "2 workers": measured, "ratios": ratios}
    found = {"machine": "a machine", "load_shares_cores": False, "digits": part}
    text = serving.workers({**found, "photographs": part})
    assert "| digits | 2 workers | 1000 | 0.80 ms | 41, 40 MB |" in text
    assert "| photographs | rate, 2 workers to 1 worker | 1.90 |" in text
    assert text.endswith("On a machine. The load has other cores.")
    assert serving.workers({}) == ""


def test_the_serving_section_holds_every_server_and_goal_of_its_metrics() -> None:
    found = json.loads((RESULTS / "serving.json").read_text())
    text = serving.section(found)
    for part in serving.TITLES:
        for name in found.get(part, {}):
            assert name == "limits" or f"| {name} | " in text
    assert "requests a second at 16 over the best peer's" in text
    assert serving.draw(found).startswith(b"\x89PNG")


@pytest.mark.parametrize("chunked", [False, True])
def test_the_load_counts_every_response_by_its_status(chunked: bool) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200 if body == b"good" else 429)
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"2\r\nok\r\n0\r\n\r\n")
            else:
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        good, bad = (
            load.run(
                Request("/", "text/plain", body), server.server_port, connections=3, seconds=0.1
            )
            for body in (b"good", b"bad")
        )
        server.shutdown()
    assert set(good.statuses) == {200}
    assert len(good.latencies) == good.statuses[200] >= 3
    assert good.percentile(50) > 0
    assert set(bad.statuses) == {429}
    assert bad.latencies == []


def test_the_table_of_detectors_has_the_mean_of_a_tasks_runs() -> None:
    def run(area: float) -> dict[str, object]:
        names = ("", "pca_mean_", "pca_peak_", "pixel_neighbours_")
        metrics = {f"{name}auroc_against_other_classes": area for name in names}
        metrics["false_positive_rate_at_0.05"] = 0.04
        chosen = {
            "score": ["nearest-images"],
            "map": ["pca-peak"],
            "size": [28, 28],
            "calibrated_on": 500,
        }
        return {"metrics": metrics, "minutes": 1.5, "device": "CPU", **chosen}

    text = anomaly.section({"one-class-mnist": {"class-0": run(0.98), "class-1": run(0.99)}})
    assert (
        "| one class of MNIST against all test images | 98.50, mean of 2 | 98.50 | 98.50 | 98.50 |"
        in text
    )
    assert text.splitlines()[2].endswith("| 3.0 |")
    assert "| class-0 | 98.00 | nearest-images | pca-peak | 28x28 | 500 images | 4.0 % |" in text


def test_the_standard_error_of_a_single_run_stands_in_the_table() -> None:
    metrics = {
        "auroc_against_defects": 0.96,
        "auroc_against_defects_se": 0.012,
        "pixel_auroc": 0.97,
        "aupro": 0.9,
    }
    chosen = {
        "score": ["neighbours"],
        "map": ["neighbours"],
        "size": [256, 256],
        "calibrated_on": 31,
    }
    text = anomaly.section(
        {"cookies": {"cookies": {"metrics": metrics, "minutes": 0.4, "device": "CPU", **chosen}}}
    )
    assert "| 96.00 ± 1.20; pixels 97.00, AUPRO 90.00 | – | – | – |" in text


def test_embeddings_that_separate_classes_score_1() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    separated = np.eye(3, dtype=np.float32)[labels] + generator.normal(0, 0.05, (120, 3)).astype(
        np.float32
    )
    found = embeddings.measure(separated, labels, labelled=20, seed=0)
    assert found == {"5-nn": 1.0, "probe": 1.0, "precision at 10": 1.0}
    mixed = embeddings.measure(
        generator.normal(size=(120, 3)).astype(np.float32), labels, labelled=20, seed=0
    )
    assert max(mixed.values()) < 0.6


def test_detectors_are_compared_by_the_medians_of_their_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = iter([10, 30, 12, 36, 50, 33])

    def measured(_: Path, photograph: bytes, connections: list[int], __: float) -> dict[int, float]:
        assert (photograph, connections) == (b"photograph", [4])
        return {4: next(rates)}

    (tmp_path / "photograph.jpg").write_bytes(b"photograph")
    arguments = [str(tmp_path / "photograph.jpg"), "old", "new", "--connections", "4"]
    detectors.main(arguments, measured)
    old, new = capsys.readouterr().out.splitlines()
    assert old == "old, 4 connections: 12.0 requests a second, 1.00 times"
    assert new == "new, 4 connections: 33.0 requests a second, 2.75 times"
