import asyncio
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.errors import InvalidParameter
from service.errors import InvalidItems, OperationNotSupported, TooManyImages
from service.operations import EncodedImages, Limits, Operations, Pictures, Timings
from service.registry.registry import ModelRegistry
from service.registry.repository import ModelRepository
from service.registry.served_model import ServedModel
from service.scheduling.admission import Admission
from service.scheduling.executor import DeviceExecutor
from tests.bundles import LATENT_DIM, Rig

LIMITS = Limits(max_images=8, max_image_pixels=1000, max_output_pixels=10_000, request_timeout=60)


@pytest.fixture
def operations(rig: Rig) -> Iterator[Operations]:
    executor = DeviceExecutor(max_batch_size=3)
    yield Operations(rig.opened, Admission(100, 10**6), executor, LIMITS, cores=2)
    executor.close()


@pytest.fixture(scope="module")
def rig(models: Path) -> Rig:
    rig = Rig(ModelRepository(models))
    rig.updates.load_all()
    return rig


@pytest.fixture(scope="module")
def registry(rig: Rig) -> ModelRegistry:
    return rig.registry


@pytest.fixture
def tiny(registry: ModelRegistry) -> ServedModel:
    return registry.get("tiny")


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 4, 6, 1), dtype=np.uint8)


def test_a_request_larger_than_a_batch_gets_all_results_in_order(
    operations: Operations, tiny: ServedModel
) -> None:
    images = pixels(7)
    encoded = asyncio.run(operations.encode(tiny, EncodedImages(images), Timings(), variance=False))
    expected = images.reshape(7, -1)[:, :LATENT_DIM] / np.float32(255)
    np.testing.assert_allclose(encoded.latents, expected, atol=1e-6)


def test_sampling_gives_the_same_bytes_whatever_else_runs(
    operations: Operations, tiny: ServedModel
) -> None:
    async def crowd() -> list[np.ndarray]:
        tasks = [operations.sample(tiny, 5, 42, 1.0, Timings()) for _ in range(4)]
        tasks += [operations.sample(tiny, 2, other, 1.0, Timings()) for other in range(4)]
        return [drawn.images for drawn, _ in await asyncio.gather(*tasks)]

    alone, _ = asyncio.run(operations.sample(tiny, 5, 42, 1.0, Timings()))
    for images in asyncio.run(crowd())[:4]:
        np.testing.assert_array_equal(images, alone.images)


def test_a_seed_that_is_drawn_can_be_used_again(operations: Operations, tiny: ServedModel) -> None:
    drawn, seed = asyncio.run(operations.sample(tiny, 3, None, 1.0, Timings()))
    again, _ = asyncio.run(operations.sample(tiny, 3, seed, 1.0, Timings()))
    np.testing.assert_array_equal(drawn.images, again.images)


def test_the_error_of_a_reconstruction_is_its_mean_squared_error(
    operations: Operations, tiny: ServedModel
) -> None:
    images = pixels(2)
    found = asyncio.run(operations.reconstruct(tiny, EncodedImages(images), Timings()))
    lost = images.reshape(2, -1)[:, LATENT_DIM:].astype(np.float64) / 255
    np.testing.assert_allclose(
        found.errors, np.square(lost).sum(axis=1) / images[0].size, rtol=1e-5
    )


def test_regions_and_heatmap_are_in_pixels_of_the_input(
    operations: Operations, tiny: ServedModel
) -> None:
    from bundle.imaging import encode_png

    image = np.zeros(
        (8, 18), np.uint8
    )  # twice as high and three times as wide as the model's input
    image[6:8, 15:18] = 255  # the model's last pixel
    given = EncodedImages([encode_png(image)])
    scored = asyncio.run(operations.score(tiny, given, Timings(), 0.01, Pictures(heatmap=True)))
    assert scored.localised is not None
    (found,) = scored.localised
    assert found.heatmap is not None
    assert Image.open(io.BytesIO(found.heatmap)).size == (18, 8)
    assert found.overlay is None
    (region,) = found.regions
    assert (region.x, region.y, region.width, region.height) == (15, 6, 3, 2)


def test_an_overlay_lies_on_the_levels_that_the_model_saw(
    operations: Operations, tiny: ServedModel
) -> None:
    spec = tiny.manifest.input.model_copy(update={"white_16_bit": 4095})
    twelve = replace(tiny, manifest=tiny.manifest.model_copy(update={"input": spec}))
    image = np.zeros((8, 18), np.uint16)
    image[:4, :6] = 2048  # in the part that the model reconstructs: no heat, no outline
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    given = EncodedImages([data.getvalue()])
    scored = asyncio.run(operations.score(twelve, given, Timings(), 0.01, Pictures(overlay=True)))
    assert scored.localised is not None
    (found,) = scored.localised
    assert found.overlay is not None
    assert np.asarray(Image.open(io.BytesIO(found.overlay)))[0, 0].tolist() == [128] * 3


def test_every_invalid_item_is_named(operations: Operations, tiny: ServedModel) -> None:
    latents = [np.zeros(LATENT_DIM, np.float32) for _ in range(4)]
    latents[1] = np.zeros(3, np.float32)
    latents[3] = np.full(LATENT_DIM, np.nan, np.float32)
    with pytest.raises(
        InvalidItems, match=r"item 1: .* has 8 numbers, not 3 \(and 1 more\)"
    ) as caught:
        asyncio.run(operations.decode(tiny, latents, Timings()))
    assert [index for index, _ in caught.value.errors] == [1, 3]


@pytest.mark.parametrize(("count", "error"), [(0, InvalidParameter), (9, TooManyImages)])
def test_the_number_of_items_is_limited(
    operations: Operations, tiny: ServedModel, count: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        asyncio.run(
            operations.encode(tiny, EncodedImages(pixels(count)), Timings(), variance=False)
        )
    with pytest.raises(error):
        asyncio.run(operations.decode(tiny, np.zeros((count, LATENT_DIM), np.float32), Timings()))
    with pytest.raises(error):
        asyncio.run(operations.sample(tiny, count, 1, 1.0, Timings()))


def test_an_operation_that_a_model_was_not_trained_for_is_refused(
    operations: Operations, registry: ModelRegistry
) -> None:
    with pytest.raises(OperationNotSupported, match="it can: encode, decode, sample"):
        asyncio.run(
            operations.denoise(registry.get("tiny-vae"), EncodedImages(pixels(1)), Timings())
        )


def test_only_a_variational_model_has_a_variance(
    operations: Operations, registry: ModelRegistry
) -> None:
    given = EncodedImages(pixels(2))
    encoded = asyncio.run(
        operations.encode(registry.get("tiny-vae"), given, Timings(), variance=True)
    )
    assert encoded.log_variances is not None
    np.testing.assert_allclose(encoded.log_variances, encoded.latents - 4)
    with pytest.raises(InvalidParameter, match="not variational"):
        asyncio.run(operations.encode(registry.get("tiny"), given, Timings(), variance=True))


def test_a_path_between_images_is_one_between_their_latents(
    operations: Operations, tiny: ServedModel
) -> None:
    given = EncodedImages(pixels(2))
    latents = asyncio.run(operations.encode(tiny, given, Timings(), variance=False)).latents
    of_images = asyncio.run(operations.interpolate(tiny, given, 5, "linear", Timings()))
    of_latents = asyncio.run(operations.interpolate(tiny, latents, 5, "linear", Timings()))
    np.testing.assert_array_equal(of_images.images, of_latents.images)
    with pytest.raises(InvalidParameter, match="between 2 images or latents, not 3"):
        asyncio.run(operations.interpolate(tiny, EncodedImages(pixels(3)), 5, "linear", Timings()))


def test_timings_cover_each_phase(operations: Operations, tiny: ServedModel) -> None:
    timings = Timings()
    asyncio.run(operations.reconstruct(tiny, EncodedImages(pixels(8)), timings))
    _, queue, inference, _ = timings.seconds()
    assert inference > 0
    assert queue > 0
