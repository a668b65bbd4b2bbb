import numpy as np
import pytest
import torch

from training.detector.whitening import SHRINKAGE, LatentDistance, Whitening, find_principal_axes


def vectors(count: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    scales = torch.linspace(1, 3, dimensions)
    return (
        scales * torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) + 5
    )


def test_the_distance_is_that_of_mahalanobis_with_a_shrunk_covariance() -> None:
    training, new = vectors(200, 6), vectors(20, 6, seed=1)
    covariance = np.cov(training.numpy().T, bias=True)
    covariance += SHRINKAGE * np.linalg.eigvalsh(covariance)[-1] * np.eye(6)
    away = (new - training.mean(dim=0)).numpy()
    expected = np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away))
    np.testing.assert_allclose(Whitening(training, 200)(new), expected, rtol=2e-3)
    np.testing.assert_allclose(LatentDistance(training, 200)(new), np.log(expected), atol=2e-3)


def test_coordinates_of_the_training_images_have_nearly_unit_variance() -> None:
    training = vectors(500, 4)
    deviations = Whitening(training, 500).project(training).std(dim=0)
    assert deviations.max() == pytest.approx(1, abs=0.05)
    assert deviations.min() > 0.8


@pytest.mark.parametrize(("fit_size", "axes"), [(1, 1), (7, 3), (1000, 10)])
def test_there_is_an_axis_for_two_vectors_of_the_fit_size(fit_size: int, axes: int) -> None:
    assert Whitening(vectors(30, 10), fit_size).project(vectors(2, 10)).shape == (2, axes)


@pytest.mark.parametrize("count", [8, 80])
def test_principal_axes_are_those_of_the_singular_values(count: int) -> None:
    centred = vectors(count, 20).double() - 5
    _, values, axes = np.linalg.svd(centred.numpy())
    variances, found = find_principal_axes(centred, 3)
    np.testing.assert_allclose(variances, np.square(values[:3]) / count)
    np.testing.assert_allclose(np.abs(found.numpy() @ axes[:3].T), np.eye(3), atol=1e-9)


def test_latents_that_are_all_the_same_have_a_finite_distance() -> None:
    assert torch.isfinite(LatentDistance(torch.ones(5, 3), 5)(torch.eye(3))).all()
