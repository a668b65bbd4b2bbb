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


def test_wholes_are_turned_cut_or_put_together_otherwise() -> None:
    images = cookies().repeat(20, 1, 1, 1)
    spoilt, masks, kinds = synthetic.rearrange(images, torch.Generator().manual_seed(0))
    assert masks.min() == 1
    assert kinds is not None
    assert set(kinds.tolist()) == set(range(10))  # they are not square: no quarter turns
    assert ((spoilt - images).square().mean(dim=(1, 2, 3)) > 1e-4).float().mean() > 0.9  # some lie over themselves
    assert torch.equal(spoilt[kinds == 0], images.flip(2)[kinds == 0])
    top = spoilt[kinds == 6]
    assert torch.equal(top, top.flip(2))
    assert torch.equal(top[:, :, :32], images[kinds == 6][:, :, :32])


def test_what_is_cut_away_shows_the_background() -> None:
    images = torch.full((200, 1, 16, 12), 0.25)
    images[:, :, 4:12, 3:9] = 0.75
    spoilt, _, kinds = synthetic.rearrange(images, torch.Generator().manual_seed(0))
    assert kinds is not None
    cut = spoilt[kinds == 4]
    assert {*cut.unique().tolist()} == {0.25, 0.75}
    assert ((cut == 0.75).float().mean(dim=(1, 2, 3)) < 0.25).all()
    assert torch.equal(spoilt[kinds == 5], images[kinds == 5])  # laid over another of the same


def test_a_share_of_the_images_is_left_alone() -> None:
    images = cookies().repeat(10, 1, 1, 1)
    spoilt, masks, _ = synthetic.spoil(images, torch.Generator().manual_seed(0), share=0.3)
    untouched = (spoilt == images).flatten(1).all(dim=1)
    assert 0.6 < untouched.float().mean() < 0.8
    assert masks[untouched].sum() == 0
