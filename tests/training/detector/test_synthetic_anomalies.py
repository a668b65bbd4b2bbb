"""Synthetic anomalies can be seen, and are the same for the same seed."""

import numpy as np
import pytest

from bundle.tensors import Images
from tests.training.detector.fakes import normal_images
from training.detector.synthetic_anomalies import KINDS, MIN_VISIBLE_LEVELS, generate

COUNT = 12  # of each kind
EXTENTS = 0.04, 0.25  # in parts of the shorter side


@pytest.fixture(scope="module")
def images() -> Images:
    return normal_images(7, side=96)


@pytest.mark.parametrize("extents", [EXTENTS, (0.8, 1.6)])
def test_there_are_as_many_of_each_kind_with_extents_within_the_range(
    images: Images, extents: tuple[float, float]
) -> None:
    found = generate(images, COUNT, extents, seed=0)
    assert len(found) == COUNT * len(KINDS)
    assert np.bincount(found.kinds).tolist() == [COUNT] * len(KINDS)
    assert found.extents.min() >= extents[0]
    assert found.extents.max() <= extents[1]
    assert found.images.shape == (len(found), *images.shape[1:])
    for kind in range(len(KINDS)):
        assert (
            np.bincount(found.sources[found.kinds == kind], minlength=7).max() == 2
        )  # of each source one or two


def test_extents_rise_in_even_ratios_and_are_larger_only_if_nothing_was_visible(
    images: Images,
) -> None:
    found = generate(images, COUNT, EXTENTS, seed=0).extents.reshape(len(KINDS), COUNT)
    even = np.geomspace(*EXTENTS, COUNT)
    assert (found >= even - 1e-9).all()
    assert np.isclose(found, even).mean() > 0.5


def test_the_same_seed_makes_the_same_anomalies(images: Images) -> None:
    first, again, other = (generate(images, COUNT, EXTENTS, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.sources, again.sources)
    assert (first.images != other.images).any()


@pytest.mark.parametrize("kind", KINDS)
def test_most_anomalies_of_every_kind_change_a_part_of_the_image_visibly(
    images: Images, kind: str
) -> None:
    found = generate(images, COUNT, EXTENTS, seed=0)
    chosen = found.kinds == [*KINDS].index(kind)
    change = np.abs(found.images[chosen].astype(int) - images[found.sources[chosen]]).max(axis=3)
    most = change.reshape(COUNT, -1).max(axis=1)
    assert (most >= MIN_VISIBLE_LEVELS).mean() >= 0.75
    assert (most >= MIN_VISIBLE_LEVELS // 3).all()
    assert ((change > 0).mean(axis=(1, 2)) < 0.2).all()


def test_grey_photographs_stay_grey(images: Images) -> None:
    found = generate(np.repeat(images[..., :1], 3, axis=3), COUNT, EXTENTS, seed=0).images
    assert (found == found[..., :1]).all()
    assert generate(images[..., :1], 1, EXTENTS, seed=0).images.shape[3] == 1
