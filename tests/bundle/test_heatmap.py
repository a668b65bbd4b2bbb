import numpy as np
import pytest

from bundle.heatmap import Region, apply_colours, compute_brightness, draw, find_regions
from bundle.manifest import ErrorMapScale

SCALE = ErrorMapScale(low=0.1, high=0.5)
COLD = np.zeros((40, 60), np.uint8)


def test_heat_is_dark_at_the_low_end_and_bright_at_the_high_end() -> None:
    assert compute_brightness(np.array([[0.0, 0.1, 0.2, 0.5, 9.0]]), SCALE).tolist() == [
        [0, 0, 64, 255, 255]
    ]


def test_regions_are_the_boxes_of_connected_bright_areas_strongest_first() -> None:
    error_map = np.zeros((6, 8))
    error_map[1, 1:4] = 0.4
    error_map[2, 3] = 0.45
    error_map[4:6, 6] = 0.9
    error_map[0, 7] = 0.2  # not bright enough
    strongest, other = find_regions(error_map, SCALE)
    assert (strongest.x, strongest.y, strongest.width, strongest.height, strongest.score) == (
        6,
        4,
        1,
        2,
        0.9,
    )
    assert (other.x, other.y, other.width, other.height, other.score) == (1, 1, 3, 2, 0.45)


def test_areas_that_touch_at_a_corner_only_are_two() -> None:
    assert len(find_regions(np.eye(3), SCALE)) == 3


def test_regions_are_limited_in_number() -> None:
    assert len(find_regions(np.eye(40), SCALE, limit=16)) == 16


def test_an_area_that_winds_is_one() -> None:
    """Rows of a spiral have many runs, which are joined only far away."""
    spiral = np.zeros((39, 39))
    for ring in range(0, 19, 2):
        spiral[ring : 39 - ring, (ring, 38 - ring)] = 1
        spiral[(ring, 38 - ring), ring : 39 - ring] = 1
        spiral[ring + 1, ring] = 0  # open the ring, and lead into the next one
        spiral[ring + 2, ring + 1] = 1
    (found,) = find_regions(spiral, SCALE)
    assert (found.x, found.y, found.width, found.height) == (0, 0, 39, 39)


@pytest.mark.parametrize("channels", [1, 3])
def test_normal_areas_stay_as_they_are(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, channels), dtype=np.uint8)
    np.testing.assert_array_equal(draw(image, COLD, []), np.broadcast_to(image, (40, 60, 3)))


@pytest.mark.parametrize("ground", [0, 90, 255])
def test_the_colour_grows_with_the_heat(ground: int) -> None:
    image = np.full((1, 256, 3), ground, np.uint8)
    heatmap = np.arange(256, dtype=np.uint8)[None]
    drawn = draw(image, heatmap, []).astype(int)
    colourful = drawn.max(axis=-1) - drawn.min(axis=-1)
    steps = colourful[0, [0, 64, 128, 255]]
    assert steps[0] == 0
    assert (np.diff(steps) > 10).all()


@pytest.mark.parametrize("ground", [0, 255])
def test_a_region_is_outlined_light_on_dark_outside_of_it(ground: int) -> None:
    image = np.full((40, 60, 1), ground, np.uint8)
    drawn = draw(image, COLD, [Region(20, 10, 8, 6, 1.0)])[..., 0]
    assert drawn[12, 16:22].tolist() == [ground, ground, 0, 255, ground, ground]
    assert drawn[12, 26:31].tolist() == [ground, ground, 255, 0, ground]
    assert drawn[6:11, 22].tolist() == [ground, ground, 0, 255, ground]
    assert drawn[15:19, 22].tolist() == [ground, 255, 0, ground]


def test_the_outline_of_a_region_at_the_edge_stays_in_the_image() -> None:
    drawn = draw(np.full((40, 60, 1), 90, np.uint8), COLD, [Region(0, 0, 60, 40, 1.0)])[..., 0]
    for line in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert (line == 255).all()
    assert (drawn[1:-1, 1:-1] == 90).all()


def test_outlines_are_as_wide_as_the_image_is_large() -> None:
    image, cold = np.zeros((900, 1200, 1), np.uint8), np.zeros((900, 1200), np.uint8)
    drawn = draw(image, cold, [Region(100, 100, 50, 50, 1.0)])[..., 0]
    assert (drawn[120, 90:110] == 255).sum() == 3


def test_colours_of_a_heatmap_rise_in_lightness() -> None:
    linear = (apply_colours(np.arange(256, dtype=np.uint8)) / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(np.maximum(luminance, 0.008856)) - 16
    assert (np.diff(luminance) > 0).all()
    assert np.diff(lightness[::16]).max() < 12
    assert lightness[-1] > 95
