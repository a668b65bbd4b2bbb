"""Trials choose what finds synthetic anomalies, and take nothing dearer that gains nothing."""

import numpy as np
import pytest

from bundle.manifest import InputSpec
from bundle.tensors import Images, TensorName
from tests.training.detector.fakes import SIDE, FakeEncoder, encode, normal_images
from training.detector import selection
from training.detector.components import BASELINES
from training.detector.config import DetectorConfig
from training.detector.image_features import ImageFeatures
from training.detector.synthetic_anomalies import KINDS
from training.detector.trials import ANOMALIES_PER_KIND, MIN_LOCAL_IMAGES, DetectorSearch, Trials
from training.progress import silence

COUNT = 24
SIZES = [(SIDE, SIDE), (2 * SIDE, 2 * SIDE)]
SPEC = InputSpec(height=2 * SIDE, width=2 * SIDE, channels=3)


class DullEncoder(FakeEncoder):
    """Sees no more at a larger size: images are reduced to the first."""

    def encode(self, images: Images, keep_images: bool = True) -> ImageFeatures:
        factor = images.shape[1] // SIDE
        return super().encode(np.ascontiguousarray(images[:, ::factor, ::factor]), keep_images)


class BlindEncoder(FakeEncoder):
    """Gives random feature maps, which say nothing of the images."""

    def encode(self, images: Images, keep_images: bool = True) -> ImageFeatures:
        found, generator = super().encode(images, keep_images), np.random.default_rng(0)
        strides: tuple[TensorName, ...] = ("features_8", "features_16")
        noise = {name: generator.normal(size=found.arrays[name].shape) for name in strides}
        random = {name: array.astype(np.float16) for name, array in noise.items()}
        return ImageFeatures.from_arrays(found.arrays | random)


class SharpEncoder(BlindEncoder):
    """Is blind at the first size alone."""

    def encode(self, images: Images, keep_images: bool = True) -> ImageFeatures:
        return super().encode(images, keep_images) if images.shape[1] == SIDE else encode(images)


def run(
    encoder: FakeEncoder,
    log: list[str] | None = None,
    images: Images | None = None,
    **settings: object,
) -> Trials:
    config = DetectorConfig.model_validate(
        {"sizes": SIZES, "candidates": ["neighbours"], "banks": [150], **settings}
    )
    normal = normal_images(COUNT, side=2 * SIDE) if images is None else images
    trials = DetectorSearch(normal, SPEC, config, lambda _: encoder, seed=0)
    return trials.run(config.sizes, silence if log is None else log.append)


@pytest.mark.parametrize(
    ("encoder", "size"), [(SharpEncoder(), SIZES[1]), (DullEncoder(), SIZES[0])]
)
def test_a_larger_size_is_taken_if_it_gains(encoder: FakeEncoder, size: tuple[int, int]) -> None:
    logged: list[str] = []
    trials = run(encoder, logged)
    assert trials.choice.size == size
    assert [*trials.steps] == [f"neighbours at {side}x{side}, bank of 150" for side, _ in SIZES]
    assert len(logged) == 2
    chosen = trials.steps[f"neighbours at {size[0]}x{size[1]}, bank of 150"]
    assert selection.mean_auroc(trials.chosen, trials.kinds) == chosen


def test_baselines_are_measured_and_never_chosen() -> None:
    trials = run(BlindEncoder(), sizes=SIZES[:1])
    areas = {
        names: selection.mean_auroc(outcome, trials.kinds)
        for names, outcome in trials.outcomes.items()
    }
    assert [*areas] == [("neighbours",), *((name,) for name in BASELINES)]
    assert areas["neighbours",] == pytest.approx(0.5, abs=0.1)
    assert areas["pca-peak",] > 0.8
    assert trials.choice.names == ("neighbours",)


def test_every_candidate_is_measured_on_the_same_anomalies() -> None:
    trials = run(
        FakeEncoder(), sizes=SIZES[:1], candidates=["neighbours", "neighbours + gaussians"]
    )
    assert [*trials.outcomes][:2] == [("neighbours",), ("neighbours", "gaussians")]
    for outcome in trials.outcomes.values():
        assert len(outcome.normal) == COUNT
        assert len(outcome.anomalous) == len(trials.anomalies) == ANOMALIES_PER_KIND * len(KINDS)


def test_a_bank_has_at_most_an_entry_for_ten_patches() -> None:
    patches = COUNT * (SIDE // 8) ** 2
    trials = run(DullEncoder(), sizes=SIZES[:1], banks=[20, patches // 10, patches // 10 + 1])
    assert [*trials.steps] == [
        f"neighbours at 64x64, bank of {bank}" for bank in (20, patches // 10)
    ]


@pytest.mark.parametrize("count", [MIN_LOCAL_IMAGES - 1, MIN_LOCAL_IMAGES])
def test_local_components_need_enough_images(count: int) -> None:
    candidates = ["local-neighbours", "gaussians + local-neighbours", "neighbours"]
    trials = run(FakeEncoder(), images=normal_images(count), sizes=SIZES[:1], candidates=candidates)
    tried = [names for names in trials.outcomes if "local-neighbours" in names]
    assert len(tried) == (2 if count == MIN_LOCAL_IMAGES else 0)


def test_the_only_candidate_is_tried_on_few_images_too() -> None:
    trials = run(
        FakeEncoder(), images=normal_images(8), sizes=SIZES[:1], candidates=["local-neighbours"]
    )
    assert trials.choice.names == ("local-neighbours",)
