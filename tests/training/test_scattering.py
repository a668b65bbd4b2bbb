import math

import pytest
import torch

from tests.training.conftest import cookies
from training.scattering import ANGLES, FLOOR, Scattering


def test_each_cell_has_its_channels_and_the_moduli_of_two_orders() -> None:
    found = Scattering()(cookies())
    assert found.shape == (6, 16 * (3 + 3 * ANGLES + 3 * ANGLES**2))


def test_a_flat_image_has_no_moduli() -> None:
    found = Scattering()(torch.full((1, 1, 32, 32), 0.5))
    assert found[0, :16] == pytest.approx(math.log(0.5 + FLOOR))
    assert found[0, 16:] == pytest.approx(math.log(FLOOR), abs=1e-3)


def test_waves_are_told_apart_by_their_direction() -> None:
    across = torch.sin(torch.arange(32.0) * 0.75 * math.pi / 2)[None, None, None].expand(1, 1, 32, 32)
    found = Scattering()(torch.cat([across, across.transpose(2, 3)]))[:, 16 : 16 + 3 * ANGLES * 16]
    strongest = found.view(2, 3, ANGLES, 16).mean(dim=3)[:, 1].argmax(dim=1)
    assert strongest.tolist() == [0, ANGLES // 2]


def test_a_small_shift_changes_less_than_another_image() -> None:
    images = cookies()
    found, shifted = Scattering()(images), Scattering()(images.roll(1, dims=3))
    moved = (found - shifted).square().mean(dim=1)
    others = (found - found.roll(1, dims=0)).square().mean(dim=1)
    assert (moved < others / 3).all()
