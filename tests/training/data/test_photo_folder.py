"""Photographs in the layout of MVTec AD, or just in a folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.manifest import InputSpec
from tests.training.conftest import COOKIES, photographs
from training.data import image_file, photo_folder
from training.data.photo_folder import PhotoFolder
from training.errors import DataError
from training.progress import Log, silence

SPEC = InputSpec(height=64, width=48, channels=3)
SIZE = SPEC.height, SPEC.width


def find(
    directory: Path, log: Log = silence, policy: image_file.InvalidFilePolicy = "convert"
) -> PhotoFolder:
    return photo_folder.find(directory, SPEC, policy, log)


def masks(found: PhotoFolder) -> list[np.ndarray | None]:
    return [photo_folder.decode_mask(path, SIZE) if path else None for path in found.masks]


def test_the_layout_names_normal_images_and_masks_of_anomalies() -> None:
    found = find(COOKIES)
    assert [
        len(split) for split in (found.training, found.validation, found.normal, found.anomalous)
    ] == [20, 0, 5, 5]
    assert found.kinds == ("cracked",)
    assert found.labels.tolist() == [0] * 5
    assert all(found.masks)
    mask = masks(found)[0]
    assert mask is not None
    assert mask.shape == SIZE
    assert mask.any()
    assert list(found.sha256) == ["cookies/train/good", "cookies/test"]


def test_the_digests_are_those_of_earlier_versions() -> None:
    """Detectors that they trained can be measured again."""
    assert {digest[:12] for digest in find(COOKIES).sha256.values()} == {
        "d67e0054034b",
        "83a598c7c2c5",
    }


def test_a_folder_is_taken_for_normal_images() -> None:
    found = find(COOKIES / "train" / "good")
    assert len(found.training) == 20
    assert found.normal == found.anomalous == ()
    assert found.kinds == ()


def test_photographs_are_decoded_at_any_size_in_order() -> None:
    paths = find(COOKIES).training
    logged: list[str] = []
    for height, width in ((64, 48), (32, 32)):
        spec = SPEC.model_copy(update={"height": height, "width": width})
        images = image_file.decode(paths, spec, logged.append)
        assert images.shape == (20, height, width, 3)
        for path, image in zip(paths, images, strict=True):
            expected = image_file.read(path, spec).pixels
            assert expected is not None
            np.testing.assert_array_equal(image, expected)
    assert logged == ["decoding at 64x48: 20 files", "decoding at 32x32: 20 files"]


@pytest.mark.parametrize(("value", "mode"), [(255, "L"), (1, "L"), (1, "P"), (True, "1")])
def test_masks_may_be_of_any_size_and_mark_anomalies_by_any_number(
    cookies: Path, value: int, mode: str
) -> None:
    mask = np.zeros((128, 96), dtype=np.uint8)
    mask[:64] = value
    drawn = Image.fromarray(mask > 0) if mode == "1" else Image.fromarray(mask)
    if mode == "P":
        drawn.putpalette([0, 0, 0, 30, 160, 70])
    shutil.rmtree(cookies / "ground_truth")
    (cookies / "ground_truth" / "cracked").mkdir(parents=True)
    drawn.save(cookies / "ground_truth" / "cracked" / "anomaly-1.png")
    first, *others = masks(find(cookies))
    assert first is not None
    assert first[:32].all()
    assert not first[32:].any()
    assert others == [None] * 4


def test_normal_images_may_lie_beside_the_test_images(cookies: Path, tmp_path: Path) -> None:
    beside, good = tmp_path / "a", tmp_path / "b"
    for path in (cookies / "train" / "good").iterdir():
        shutil.move(path, cookies / path.name)
    shutil.rmtree(cookies / "train")
    shutil.copytree(cookies, beside)
    shutil.copytree(cookies, good)
    (good / "good").mkdir()
    for path in [*good.glob("*.*")]:
        shutil.move(path, good / "good")
    for home in (beside, good):
        found = find(home)
        assert len(found.training) == 20
        assert [path.name for path in found.normal] == [path.name for path in find(COOKIES).normal]
        assert all(found.masks)


@pytest.mark.parametrize("place", ["val/good", "validation", "Val/good"])
def test_validation_images_are_a_split_of_their_own(cookies: Path, place: str) -> None:
    photographs(cookies / place, 3)
    found = find(cookies)
    assert (len(found.training), len(found.validation), len(found.normal)) == (20, 3, 5)
    assert list(found.sha256) == ["cookies/train/good", f"cookies/{place}", "cookies/test"]


def test_normal_images_are_not_guessed(cookies: Path) -> None:
    bare = cookies / "test" / "one.png"
    shutil.copy(next((cookies / "test" / "good").iterdir()), bare)
    with pytest.raises(DataError, match=r"one\.png has no label: put it into .*test/good"):
        find(cookies)
    bare.unlink()
    (cookies / "train" / "good").rename(cookies / "train" / "fine")
    with pytest.raises(DataError, match=r"holds fine: put the normal images into .*train/good"):
        find(cookies)


def test_skipped_folders_beside_normal_images_are_logged(cookies: Path) -> None:
    photographs(cookies / "train" / "bad", 1)
    photographs(cookies / "raw", 1)
    logged: list[str] = []
    assert len(find(cookies, logged.append).training) == 20
    assert f"{cookies / 'train'}: skipped beside good: bad" in logged
    assert f"{cookies}: skipped beside ground_truth, test, train: raw" in logged


def test_one_normal_image_is_too_few_to_test_with(cookies: Path) -> None:
    for path in sorted((cookies / "test" / "good").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="holds one photograph: take at least 2, or none"):
        find(cookies)


def test_thin_anomalies_outlive_the_reduction_and_empty_masks_are_none(cookies: Path) -> None:
    line, nothing = np.zeros((640, 480), dtype=np.uint8), np.zeros((640, 480), dtype=np.uint8)
    line[:, 100] = 255
    home = cookies / "ground_truth" / "cracked"
    Image.fromarray(line).save(home / "anomaly-1_mask.png")
    Image.fromarray(nothing).save(home / "anomaly-2_mask.png")
    found = find(cookies)
    assert [mask is None for mask in found.masks[:3]] == [False, True, False]
    mask = masks(found)[0]
    assert mask is not None
    assert mask[:, 10].all()
    assert mask.sum() == 64


def test_masks_are_found_by_the_full_name_and_in_any_colour(cookies: Path) -> None:
    (cookies / "test" / "cracked" / "anomaly-1.jpg").rename(
        cookies / "test" / "cracked" / "a[1].jpg"
    )
    drawn = np.zeros((64, 48, 3), dtype=np.uint8)
    drawn[:5, :, 2] = 1
    Image.fromarray(drawn).save(cookies / "ground_truth" / "cracked" / "a[1].png")
    (cookies / "ground_truth" / "cracked" / "a[1].json").write_text("{}")
    (cookies / "ground_truth" / "cracked" / "anomaly-5_mask.png").unlink()
    logged: list[str] = []
    mask = masks(find(cookies, logged.append))[0]
    assert mask is not None
    assert mask[:5].all()
    assert not mask[5:].any()
    unmarked = cookies / "test" / "cracked" / "anomaly-5.jpg"
    assert logged == [
        "checking cookies/train/good: 20 files",
        "checking cookies/test: 10 files",
        "checking masks: 5 files",
        f"{unmarked}: no anomaly is marked; it counts by its score alone",
    ]


def test_a_mask_that_cannot_be_read_is_named(cookies: Path) -> None:
    (cookies / "ground_truth" / "cracked" / "anomaly-2_mask.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"anomaly-2_mask\.png cannot be read"):
        find(cookies)


def test_invalid_photographs_stop_or_are_skipped_or_converted(cookies: Path) -> None:
    (cookies / "train" / "good" / "empty.png").touch()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(
        cookies / "train" / "good" / "grey.png"
    )
    counts: dict[image_file.InvalidFilePolicy, int] = {"skip": 20, "convert": 21}
    for policy, count in counts.items():
        logged: list[str] = []
        assert len(find(cookies, logged.append, policy).training) == count
        assert any("/empty.png: " in line for line in logged)
        grey = (
            "/grey.png: its mode is L"
            if policy == "skip"
            else "train/good: converted 1 of 22 files: its mode is L"
        )
        assert any(grey in line for line in logged)
    with pytest.raises(DataError, match="2 of 22 files are invalid; mend them, or set"):
        find(cookies, policy="stop")


@pytest.mark.parametrize("twin", ["test/good", "test/cracked", "val"])
def test_a_photograph_in_two_splits_is_refused(cookies: Path, twin: str) -> None:
    photographs(cookies / "val", 2)
    shutil.copy(cookies / "train" / "good" / "normal-3.jpg", cookies / twin / "other.jpg")
    with pytest.raises(
        DataError,
        match=r"other\.jpg \(to .*\) is a copy of .*normal-3\.jpg \(to train on\): remove one",
    ):
        find(cookies)


def test_the_same_pixels_in_another_format_are_a_copy(tmp_path: Path) -> None:
    directory = photographs(tmp_path / "photos", 8)
    with Image.open(directory / "03.png") as image:
        image.save(directory / "98.bmp")
        scratched = np.array(image)
    scratched[0, 0, 0] ^= 1  # which is nothing at a small size
    Image.fromarray(scratched).save(directory / "99.png")
    logged: list[str] = []
    found = find(directory, logged.append)
    assert [path.name for path in found.training] == [
        *(f"{index:02d}.png" for index in range(8)),
        "99.png",
    ]
    original = directory / "03.png"
    copy = directory / "98.bmp"
    assert (
        f"warning: 1 of 10 files are copies of others, as {copy} of {original}: skipped them"
        in logged
    )


def test_photographs_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    directory = photographs(tmp_path / "photos", 1)
    for index in range(1, 30):
        shutil.copy(directory / "00.png", directory / f"{index:02d}.png")
    with pytest.raises(
        DataError, match=r"all 30 photographs in .* are the same, as .*00\.png and .*01\.png: take"
    ):
        find(directory)


@pytest.mark.parametrize("place", ["train/good", "test/good", "val"])
def test_photographs_of_one_colour_are_named(cookies: Path, place: str) -> None:
    photographs(cookies / "val", 2)
    for index in range(4):
        Image.new("RGB", (100, 100), (index, 0, 0)).save(
            cookies / place / f"dark-{index}.jpg", quality=100
        )
    named = ", ".join(rf".*dark-{index}\.jpg" for index in range(3))
    with pytest.raises(
        DataError, match=f"every pixel has the same colour in {named} and 1 more: remove"
    ):
        find(cookies)


def test_an_anomalous_photograph_may_be_black_and_a_star_is_no_colour(cookies: Path) -> None:
    Image.new("RGB", (100, 100)).save(cookies / "test" / "cracked" / "dark.png")
    star = Image.new("RGB", (1000, 1000))
    star.putpixel((500, 500), (9, 9, 9))
    star.save(cookies / "train" / "good" / "star.png")
    assert len(find(cookies).training) == 21


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_photographs_are_counted(tmp_path: Path, count: int) -> None:
    directory = photographs(tmp_path / "photos", count)
    with pytest.raises(
        DataError,
        match=rf"{count} photographs in .*photos are too few .*: take at least 5 different",
    ):
        find(directory)


def test_five_photographs_are_enough(tmp_path: Path) -> None:
    assert len(find(photographs(tmp_path / "photos", 5)).training) == 5


@pytest.mark.parametrize(
    ("count", "most", "held_out"), [(19, 10, 0), (20, 10, 4), (24, 10, 4), (24, 3, 3)]
)
def test_from_twenty_on_a_fifth_is_held_out_to_test_with(
    tmp_path: Path, count: int, most: int, held_out: int
) -> None:
    found = find(photographs(tmp_path / "photos", count))
    parted = photo_folder.hold_out(found, most, seed=0)
    assert (len(parted.training), len(parted.normal)) == (count - held_out, held_out)
    assert {*parted.training, *parted.normal} == {*found.training}
    assert parted.normal == photo_folder.hold_out(found, most, seed=0).normal
    assert held_out == 0 or parted.normal != photo_folder.hold_out(found, most, seed=1).normal


def test_none_is_held_out_if_there_are_normal_test_images() -> None:
    found = find(COOKIES)
    assert photo_folder.hold_out(found, 10, seed=0) is found
