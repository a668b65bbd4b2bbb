import numpy as np
import pytest

from service.api import responses


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (4, 6)), (2, (4, 12)), (3, (8, 12)), (5, (8, 18))]
)
def test_tiles_stand_row_by_row_and_the_rest_is_black(count: int, shape: tuple[int, int]) -> None:
    images = [np.full((4, 6, 1), index + 1, np.uint8) for index in range(count)]
    grid = responses.tile(images)
    assert grid.shape == (*shape, 1)
    columns = shape[1] // 6
    cells = [grid[4 * (i // columns), 6 * (i % columns), 0] for i in range(shape[0] // 4 * columns)]
    assert cells == [*range(1, count + 1), *[0] * (len(cells) - count)]
