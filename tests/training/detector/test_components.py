"""Score components against what their papers and libraries compute."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from tests.training.detector.fakes import (
    SIDE,
    SQUARE,
    anomalous_images,
    encode,
    normal_images,
    random_encoded,
)
from training.detector import components, fitters
from training.detector.components import (
    BATCH_ENTRIES,
    BLOCKS_PER_SIDE,
    COMPONENT_NAMES,
    MIN_SQUARED_DISTANCE,
    NEAREST_IMAGES,
    Component,
    ComponentName,
    NearestImages,
    Patches,
)
from training.detector.cross_fitting import assign_folds, score
from training.detector.fitters import (
    MAX_PRINCIPAL_AXES,
    PROJECTION_DIMENSIONS,
    RIDGE,
    SHRINKAGE,
    choose_coreset,
)
from training.detector.image_features import ImageFeatures
from training.metrics.detection import auroc

Array = np.ndarray


def fit(name: ComponentName, encoded: ImageFeatures, bank: int = 300) -> Component:
    return fitters.fit(name, encoded, bank, seed=0)


def patches(encoded: ImageFeatures) -> Array:
    """Descriptors of all images, float64 (n, rows, columns, channels)."""
    return np.concatenate([Patches()(batch).numpy() for batch in encoded.batches()]).astype(
        np.float64
    )


def smooth(maps: Array) -> Array:
    """Means over 3x3, zeros beyond the border."""
    return np.stack([ndimage.uniform_filter(each, 3, mode="constant") for each in maps])


@pytest.mark.parametrize("name", COMPONENT_NAMES)
def test_an_obvious_anomaly_is_found(name: ComponentName) -> None:
    component = fit(name, encode(normal_images(24)))
    anomalous, corners = anomalous_images(12)
    normal, found = (
        score(component, encode(images)) for images in (normal_images(12, seed=2), anomalous)
    )
    assert auroc(normal.scores, found.scores) == 1
    if found.maps is None:
        assert name == "nearest-images"
        return
    for each, corner in zip(found.maps, corners, strict=True):
        peak = (
            np.add(np.unravel_index(each.argmax(), each.shape), 0.5) * SIDE / np.array(each.shape)
        )
        assert np.abs(peak - np.add(corner, SQUARE / 2)).max() < SQUARE


@pytest.mark.parametrize("name", COMPONENT_NAMES)
@torch.no_grad()
def test_an_image_scores_the_same_in_any_batch(name: ComponentName) -> None:
    component, images = fit(name, encode(normal_images(12))), anomalous_images(11)[0]
    together = score(component, encode(images))
    for index in range(len(images)):
        alone = score(component, encode(images[index : index + 1]))
        np.testing.assert_allclose(
            alone.scores, together.scores[index : index + 1], rtol=1e-4, atol=1e-5
        )
        if together.maps is not None and alone.maps is not None:
            np.testing.assert_allclose(
                alone.maps, together.maps[index : index + 1], rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("name", COMPONENT_NAMES)
def test_the_numbers_of_a_component_fit_into_float16(name: ComponentName) -> None:
    for key, tensor in fit(name, encode(normal_images(12))).state_dict().items():
        if "whitening" not in key:
            torch.testing.assert_close(tensor, tensor.half().float(), rtol=0, atol=0)


def test_descriptors_are_both_feature_maps_averaged_on_the_finest_grid() -> None:
    found = patches(encode(normal_images(2)))
    fine = encode(normal_images(2)).arrays["features_8"].astype(np.float64)
    assert found.shape == (2, SIDE // 8, SIDE // 8, 12)
    np.testing.assert_allclose(
        found[:, 3, 4, :6], fine[:, :, 2:5, 3:6].mean(axis=(2, 3)), rtol=1e-3
    )
    np.testing.assert_allclose(found[:, 0, 0, :6], fine[:, :, :2, :2].mean(axis=(2, 3)), rtol=1e-3)


def test_the_distance_is_that_of_the_nearest_normal_patch() -> None:
    normal, new = encode(normal_images(6)), encode(anomalous_images(9)[0])
    component = fit("neighbours", normal, bank=6 * 64)
    distances = cdist(patches(new).reshape(-1, 12), patches(normal).reshape(-1, 12)).min(axis=1)
    found = score(component, new)
    expected = smooth(distances.reshape(9, 8, 8))
    assert found.maps is not None
    np.testing.assert_allclose(found.maps, expected, atol=2e-3)
    np.testing.assert_allclose(found.scores, expected.max(axis=(1, 2)), rtol=0.01)


def test_the_distance_of_local_neighbours_is_that_of_the_nearest_patch_in_the_block() -> None:
    normal, new = random_encoded(6, side=16), random_encoded(9, seed=1, side=16)
    before, after = (
        each.reshape(len(each), BLOCKS_PER_SIDE, 2, BLOCKS_PER_SIDE, 2, -1)
        .transpose(1, 3, 0, 2, 4, 5)
        .reshape(BLOCKS_PER_SIDE**2, -1, each.shape[3])
        for each in (patches(normal), patches(new))
    )
    distances = np.stack(
        [cdist(found, known).min(axis=1) for known, found in zip(before, after, strict=True)]
    )
    in_place = (
        distances.reshape(BLOCKS_PER_SIDE, BLOCKS_PER_SIDE, 9, 2, 2)
        .transpose(2, 0, 3, 1, 4)
        .reshape(9, 16, 16)
    )
    found = score(fit("local-neighbours", normal, bank=10**4), new)
    assert found.maps is not None
    np.testing.assert_allclose(found.maps, smooth(in_place), atol=2e-3)
    np.testing.assert_allclose(found.scores, smooth(in_place).max(axis=(1, 2)), rtol=0.01)


def test_a_bank_that_is_compared_in_parts_has_the_nearest_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, banks = (
        torch.randn(3, count, 5, generator=generator) for count in (40, 2 * BATCH_ENTRIES + 7)
    )
    expected = [np.square(cdist(*each)).min(axis=1) for each in zip(vectors, banks, strict=True)]
    np.testing.assert_allclose(components.measure_nearest(vectors, banks), expected, atol=1e-5)


def test_the_distance_of_gaussians_is_that_of_mahalanobis() -> None:
    normal, new = random_encoded(10, side=16), random_encoded(3, seed=1, side=16)
    vectors = patches(normal)
    count, side, channels = len(vectors), vectors.shape[1] // BLOCKS_PER_SIDE, vectors.shape[3]
    mean = vectors.mean(axis=0)
    centred = (vectors - mean).reshape(
        count, BLOCKS_PER_SIDE, side, BLOCKS_PER_SIDE, side, channels
    )
    blocks = centred.transpose(1, 3, 0, 2, 4, 5).reshape(
        BLOCKS_PER_SIDE, BLOCKS_PER_SIDE, -1, channels
    )
    covariances = blocks.swapaxes(2, 3) @ blocks / blocks.shape[2]
    pooled = covariances.mean(axis=(0, 1))
    ridge = RIDGE * np.trace(pooled) / channels * np.eye(channels)
    shrunk = (1 - SHRINKAGE) * covariances + SHRINKAGE * pooled + ridge
    inverses = np.linalg.inv(shrunk).repeat(side, axis=0).repeat(side, axis=1)
    away = patches(new) - mean
    expected = smooth(np.sqrt(np.einsum("nrci,rcij,nrcj->nrc", away, inverses, away)))
    found = score(fit("gaussians", normal), new)
    assert found.maps is not None
    np.testing.assert_allclose(found.maps, expected, rtol=0.01)
    np.testing.assert_allclose(found.scores, expected.max(axis=(1, 2)), rtol=0.01)


def test_each_entry_of_a_coreset_is_the_farthest_from_those_before() -> None:
    groups = torch.randn(3, 200, 40, generator=torch.Generator().manual_seed(1))
    coresets = choose_coreset(groups, 30, torch.Generator().manual_seed(2))
    directions = torch.randn(40, PROJECTION_DIMENSIONS, generator=torch.Generator().manual_seed(2))
    for vectors, coreset in zip(groups, coresets, strict=True):
        chosen = [int((vectors == entry).all(dim=1).nonzero()) for entry in coreset]
        projected = (vectors @ directions).numpy()
        distances = cdist(projected, projected)
        for count in range(1, 30):
            assert chosen[count] == distances[chosen[:count]].min(axis=0).argmax()


def test_a_coreset_has_one_entry_of_each_cluster() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(25, 8, generator=generator)
    vectors = centres.repeat(20, 1) + 0.01 * torch.randn(500, 8, generator=generator)
    (coreset,) = choose_coreset(vectors[None], 25, generator)
    assert sorted(torch.cdist(coreset, centres).argmin(dim=1).tolist()) == list(range(25))


def test_few_vectors_are_their_own_coreset() -> None:
    vectors = torch.arange(6.0).view(1, 3, 2)
    assert torch.equal(choose_coreset(vectors, 3, torch.Generator()), vectors)


@pytest.mark.parametrize("count", [10, 90])
def test_the_residual_is_that_of_principal_components(count: int) -> None:
    normal, new = normal_images(count, side=32), anomalous_images(9, side=32)[0]
    vectors, others = (images.reshape(len(images), -1) / 255 for images in (normal, new))
    pca = PCA(min(MAX_PRINCIPAL_AXES, count // 2), svd_solver="full").fit(vectors)
    rest = others - pca.inverse_transform(pca.transform(others))
    maps = np.square(rest).reshape(new.shape).mean(axis=3)
    mean, peak = (
        score(fit(name, encode(normal)), encode(new)) for name in ("pca-mean", "pca-peak")
    )
    assert mean.maps is not None
    np.testing.assert_allclose(mean.maps, maps, atol=2e-3 * maps.max())
    np.testing.assert_allclose(mean.scores, maps.mean(axis=(1, 2)), rtol=0.01)
    np.testing.assert_allclose(peak.scores, smooth(maps).max(axis=(1, 2)), rtol=0.01)


def test_large_photographs_are_reduced_for_components_on_pixels() -> None:
    large = normal_images(6).repeat(3, axis=1).repeat(3, axis=2)
    small, found = (
        score(fit("pca-mean", encoded), encoded).scores
        for encoded in (encode(normal_images(6)), encode(large))
    )
    np.testing.assert_allclose(found, small, rtol=1e-3)


@pytest.mark.parametrize("count", [3, 20])
def test_images_are_compared_with_their_nearest(count: int) -> None:
    normal, new = encode(normal_images(count)), encode(normal_images(9, seed=3))
    component = fit("nearest-images", normal)
    assert isinstance(component, NearestImages)
    bank, coordinates = (
        component.whitening.project(encoded.latents).numpy() for encoded in (normal, new)
    )
    nearest = np.sort(cdist(coordinates, bank), axis=1)[:, :NEAREST_IMAGES]
    expected = np.log(np.maximum(nearest, MIN_SQUARED_DISTANCE**0.5).mean(axis=1))
    np.testing.assert_allclose(score(component, new).scores, expected, atol=0.02)


@pytest.mark.parametrize("name", COMPONENT_NAMES)
@torch.no_grad()
def test_a_component_without_a_fold_is_one_fitted_to_the_others(name: ComponentName) -> None:
    encoded, new, folds = (
        encode(normal_images(12)),
        encode(anomalous_images(5)[0]),
        assign_folds(12, 3, seed=0),
    )
    full_bank = 10**6
    without_fold = score(
        fitters.FITTERS[name](encoded, folds, full_bank, 0).fit_without(1).eval(), new
    )
    others = score(fit(name, encoded.take(np.flatnonzero(folds != 1)), full_bank), new)
    np.testing.assert_allclose(without_fold.scores, others.scores, rtol=0.01)
