import pytest
import torch

from tests.training.conftest import cookies
from training import similarity


@pytest.mark.parametrize("side", [28, 96, 128, 191, 192, 256, 300, 512, 1000])
def test_what_was_reduced_once_is_not_reduced_again(side: int) -> None:
    factor = similarity.reduction(side, 2 * side)
    assert similarity.reduction(side // factor, 2 * side // factor) == 1


def test_an_image_does_not_deviate_from_itself() -> None:
    images = cookies()
    assert similarity.deviation_map(images, images).abs().max() < 1e-6
    assert similarity.deviation(images, images).abs().max() < 1e-6


def test_deviations_are_of_gradients_and_not_of_brightness() -> None:
    images = cookies() * 0.8
    brighter = images + 0.1
    blurred = torch.nn.functional.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
    assert similarity.deviation(images, brighter).max() < 1e-4
    assert similarity.deviation(images, blurred).min() > 0.01


def test_the_map_shows_where_edges_differ() -> None:
    images = cookies()
    spoilt = images.clone()
    spoilt[:, :, 20:24, 10:20] = 1.0
    found = similarity.deviation_map(images, spoilt)
    assert found.shape == (len(images), *images.shape[2:])
    inside = found[:, 18:26, 8:22].mean()
    assert inside > 10 * found[:, 45:].mean()


def test_the_loss_has_a_gradient_where_an_image_is_flat() -> None:
    flat = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    similarity.deviation(flat, torch.rand(1, 3, 16, 16)).sum().backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()
