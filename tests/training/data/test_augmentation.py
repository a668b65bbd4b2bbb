import pytest
import torch

from training.data.augmentation import (
    AugmentationConfig,
    CorruptionConfig,
    augment,
    binarise,
    corrupt,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_corruption_keeps_images_between_0_and_1() -> None:
    clean = torch.rand(8, 1, 28, 28)
    noisy = corrupt(clean, CorruptionConfig(sigma=0.5), generator())
    assert 0 <= noisy.min() < noisy.max() <= 1
    assert not torch.equal(noisy, clean)
    assert corrupt(clean, CorruptionConfig(), generator()) is clean


def test_masking_sets_the_configured_share_to_0() -> None:
    masked = corrupt(torch.ones(16, 1, 28, 28), CorruptionConfig(masking=0.3), generator())
    assert set(masked.flatten().tolist()) == {0.0, 1.0}
    assert masked.mean().item() == pytest.approx(0.7, abs=0.02)


def test_a_pixel_is_white_as_often_as_its_intensity_says() -> None:
    drawn = binarise(torch.full((40, 1, 28, 28), 0.25), generator())
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert drawn.mean().item() == pytest.approx(0.25, abs=0.01)


def test_a_quarter_of_the_images_is_mirrored_in_each_way() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3) / 6
    mirrored = augment(image.repeat(400, 1, 1, 1), AugmentationConfig(mirror=True), generator())
    for expected in (image, image.flip(2), image.flip(3), image.flip(2, 3)):
        assert 70 < sum(torch.allclose(each, expected[0], atol=1e-5) for each in mirrored) < 130


def test_without_ranges_nothing_is_augmented() -> None:
    images = torch.rand(2, 1, 28, 28)
    assert augment(images, AugmentationConfig(), generator()) is images


def test_a_shift_moves_at_most_as_far_as_it_says() -> None:
    images = torch.zeros(200, 1, 20, 28)
    images[:, 0, 10, 14] = 1
    moved = augment(images, AugmentationConfig(shift=3), generator())
    where = moved.flatten(1).argmax(dim=1)
    down, across = (where // 28 - 10).abs(), (where % 28 - 14).abs()
    assert down.max() == across.max() == 3
    assert 0 <= moved.min() <= moved.max() <= 1


@pytest.mark.parametrize(
    "distortion", [{"rotation": 90}, {"scale": 0.5}, {"shear": 40}, {"elastic": 2}]
)
def test_every_distortion_keeps_the_range_and_moves_pixels(distortion: dict[str, float]) -> None:
    images = torch.zeros(50, 1, 28, 28)
    images[:, :, 8:20, 12:16] = 1
    distorted = augment(images, AugmentationConfig.model_validate(distortion), generator())
    assert 0 <= distorted.min() <= distorted.max() <= 1
    assert (distorted - images).abs().mean(dim=(1, 2, 3)).median() > 0.005
    assert distorted.mean().item() == pytest.approx(images.mean().item(), rel=0.25)


def test_a_rotation_keeps_lengths_if_images_are_not_square() -> None:
    images = torch.zeros(500, 1, 32, 64)
    images[:, :, 15:17, 24:40] = 1
    turned = augment(images, AugmentationConfig(rotation=90), generator())
    upright = turned[:, 0, :, 31:33].mean(dim=2).sum(dim=1).max()
    assert upright.item() == pytest.approx(16, abs=1)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    images = torch.zeros(2000, 1, 28, 28)
    images[:, :, 2:26, 13:15] = 1
    turned = augment(images, AugmentationConfig(rotation=90), generator())
    across = turned[:, 0, 13:15, :].mean(dim=(1, 2)).max()
    assert across == pytest.approx(24 / 28, abs=0.1)  # one of them has turned nearly all the way
