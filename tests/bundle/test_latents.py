from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from bundle.errors import InvalidParameter
from bundle.latents import GaussianMixture, NormalPrior, interpolate

MIXTURE = GaussianMixture(
    weights=np.array([0.25, 0.75]),
    means=np.array([[0, 0], [10, 10]], np.float32),
    cholesky=np.array([[[1, 0], [0, 1]], [[1, 0], [0.9, 0.1]]], np.float32),
)


@pytest.mark.parametrize("prior", [NormalPrior(2), MIXTURE])
def test_the_seed_decides_the_draws(prior: NormalPrior | GaussianMixture) -> None:
    first, again, other = (prior.draw(5, seed, 1.0) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (5, 2)
    assert first.dtype == np.float32


def test_temperature_scales_the_deviation() -> None:
    np.testing.assert_allclose(NormalPrior(3).draw(4, 0, 0.5), NormalPrior(3).draw(4, 0, 1.0) / 2)
    assert set(map(tuple, MIXTURE.draw(50, 0, 0.0))) == {(0.0, 0.0), (10.0, 10.0)}


def test_a_mixture_draws_with_its_weights_means_and_covariances() -> None:
    drawn = MIXTURE.draw(20_000, 3, 1.0)
    second = drawn[drawn[:, 0] > 5]
    assert len(second) / len(drawn) == pytest.approx(0.75, abs=0.02)
    np.testing.assert_allclose(second.mean(axis=0), [10, 10], atol=0.05)
    np.testing.assert_allclose(np.cov(second.T), [[1, 0.9], [0.9, 0.82]], atol=0.05)


def test_a_mixture_survives_saving(tmp_path: Path) -> None:
    MIXTURE.save(tmp_path / "prior.npz")
    loaded = GaussianMixture.load(tmp_path / "prior.npz")
    np.testing.assert_allclose(loaded.draw(9, 4, 1.0), MIXTURE.draw(9, 4, 1.0), rtol=1e-3)


def test_a_mixture_whose_parts_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="other shapes"):
        GaussianMixture(np.ones(1), MIXTURE.means, MIXTURE.cholesky)
    with pytest.raises(ValueError, match="add up to 1"):
        GaussianMixture(np.array([0.9, 0.9]), MIXTURE.means, MIXTURE.cholesky)


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_a_path_begins_and_ends_at_its_ends(method: Literal["linear", "spherical"]) -> None:
    a, b = np.array([1, 0], np.float32), np.array([0, 2], np.float32)
    path = interpolate(a, b, 5, method)
    np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-6)
    assert path.shape == (5, 2)


def test_a_spherical_path_keeps_the_length() -> None:
    path = interpolate(np.array([1, 0], np.float32), np.array([0, 1], np.float32), 9, "spherical")
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 1, atol=1e-6)


def test_between_parallel_vectors_a_spherical_path_is_linear() -> None:
    a = np.array([1, 1], np.float32)
    np.testing.assert_allclose(interpolate(a, 3 * a, 3, "spherical")[1], 2 * a)
    np.testing.assert_allclose(interpolate(0 * a, a, 3, "spherical")[1], a / 2)


def test_opposite_vectors_have_no_spherical_path() -> None:
    a = np.array([1, 1], np.float32)
    with pytest.raises(InvalidParameter, match="opposite"):
        interpolate(a, -a, 3, "spherical")
