import math

import torch

from tests.conftest import DATA
from training.data.mnist import load_test
from training.detector.scattering import ANGLES, CELLS, Scattering
from training.image_ops import to_float

FEATURES = 1 + 3 * ANGLES + 3 * ANGLES**2  # of a cell: the grey image, and the moduli of two orders


def digits() -> torch.Tensor:
    """Float (n, 1, 28, 28) in 0..1."""
    return to_float(torch.from_numpy(load_test("mnist", DATA).images[:8]))


def coefficients(images: torch.Tensor) -> torch.Tensor:
    """Features of each cell: (n, features, cells)."""
    return torch.unflatten(Scattering()(images), 1, (-1, CELLS**2))


def test_each_cell_has_the_image_and_the_moduli_of_two_orders() -> None:
    assert coefficients(digits()).shape == (8, FEATURES, CELLS**2)
    assert coefficients(torch.rand(2, 3, 96, 64)).shape == (2, FEATURES + 2, CELLS**2)


def test_a_flat_image_has_no_moduli() -> None:
    found = coefficients(torch.full((1, 1, 32, 32), 0.5))
    torch.testing.assert_close(found[0, 0], torch.full((CELLS**2,), math.sqrt(0.5)))
    assert found[0, 1:].max() < 1e-3


def test_waves_differ_by_direction() -> None:
    across = torch.sin(torch.arange(32.0) * 0.75 * math.pi / 2)[None, None, None].expand(
        1, 1, 32, 32
    )
    moduli = coefficients(torch.cat([across, across.transpose(2, 3)]))[:, 1 : 1 + 3 * ANGLES]
    strongest = torch.unflatten(moduli, 1, (3, ANGLES)).mean(dim=3)[:, 1].argmax(dim=1)
    assert strongest.tolist() == [0, ANGLES // 2]


def test_a_small_shift_changes_less_than_another_image() -> None:
    found, shifted = Scattering()(digits()), Scattering()(digits().roll(1, dims=3))
    moved = (found - shifted).square().mean(dim=1)
    others = (found - found.roll(1, dims=0)).square().mean(dim=1)
    assert (moved < others / 3).all()


def test_large_images_are_reduced() -> None:
    torch.testing.assert_close(
        Scattering()(digits().repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)),
        Scattering()(digits()),
    )
