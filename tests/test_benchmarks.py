from pathlib import Path

from benchmarks import runs
from benchmarks.results.__main__ import render
from training import recipe


def figures(seed: int, mse: float, *overrides: str) -> runs.Figures:
    """Those of a run of mnist-stacked."""
    made = recipe.load("mnist-stacked", [f"seed={seed}", *overrides], f"run-{seed}").model_dump(mode="json")
    return {"seed": seed, "minutes": 2.0, "device": "CPU", "metrics": {"mse": mse, "pca_mse": 0.5}, "recipe": made}


def test_the_seeds_of_a_recipe_stand_together(tmp_path: Path) -> None:
    for seed, mse in ((1, 0.3), (0, 0.1), (0, 0.2)):
        runs.write("mnist-stacked", figures(seed, mse), tmp_path / "models.json")
    assert [run["metrics"]["mse"] for run in runs.read(tmp_path / "models.json")["mnist-stacked"]] == [0.2, 0.3]
    assert "MSE 0.250000 ± 0.070711" in render(tmp_path)


def test_runs_of_a_recipe_that_has_changed_are_not_counted_with_the_new_ones(tmp_path: Path) -> None:
    runs.write("mnist-stacked", figures(1, 0.3, "training.epochs=2"), tmp_path / "models.json")
    assert "MSE 0.300000 | MSE 0.500000 |  | at most 0.0020 | 2.0 min, CPU, one run, with other settings" in render(
        tmp_path
    )
    runs.write("mnist-stacked", figures(0, 0.1), tmp_path / "models.json")
    assert "MSE 0.100000 | MSE 0.500000 |  | at most 0.0020 | 2.0 min, CPU, one run |" in render(tmp_path)
