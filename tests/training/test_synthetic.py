"""Synthetic anomalies change a part of an image, and say which."""

from collections.abc import Callable

import pytest
import torch

from tests.training.conftest import cookies
from training import synthetic
from training.synthetic import Spoilt

KINDS: list[Callable[..., Spoilt]] = [synthetic.spoil, synthetic.deform]


@pytest.mark.parametrize("spoil", KINDS)
def test_only_what_the_mask_shows_is_changed_visibly(spoil: Callable[..., Spoilt]) -> None:
    images = cookies()
    spoilt, masks, _ = spoil(images, torch.Generator().manual_seed(0))
    change = (spoilt - images).abs().amax(dim=1, keepdim=True)
    least = synthetic.FAINT if spoil is synthetic.spoil else synthetic.VISIBLE
    assert spoilt.shape == images.shape
    assert 0 <= spoilt.min() <= spoilt.max() <= 1
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert change[masks == 1].min() > least
    assert change[masks == 0].max() <= least
    shares = masks.mean(dim=(1, 2, 3))
    assert shares.max() < 0.7
    assert (shares > 0).float().mean() > 0.8


@pytest.mark.parametrize("spoil", KINDS)
def test_the_generator_decides(spoil: Callable[..., Spoilt]) -> None:
    images = cookies()
    first, again, other = (spoil(images, torch.Generator().manual_seed(seed)).images for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_wholes_are_made_of_the_same_pixels_in_other_places() -> None:
    images = cookies()
    spoilt, masks, _ = synthetic.rearrange(images.repeat(5, 1, 1, 1), torch.Generator().manual_seed(0))
    assert masks.min() == 1
    again = images.repeat(5, 1, 1, 1)
    assert ((spoilt - again).square().mean(dim=(1, 2, 3)) > 0.002).all()
    kept = (spoilt.flatten(1).sort().values - again.flatten(1).sort().values).abs().amax(dim=1) == 0
    assert 0.5 < kept.float().mean() < 1  # all but those that are wrung


def test_a_share_of_the_images_is_left_alone() -> None:
    images = cookies().repeat(10, 1, 1, 1)
    spoilt, masks, _ = synthetic.spoil(images, torch.Generator().manual_seed(0), share=0.3)
    untouched = (spoilt == images).flatten(1).all(dim=1)
    assert 0.6 < untouched.float().mean() < 0.8
    assert masks[untouched].sum() == 0
