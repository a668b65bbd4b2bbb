"""Every kind of evidence is stronger in spoilt photographs than in good ones."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.conftest import DATA
from tests.training.conftest import cookies
from training import detector, evidence, recipe, synthetic
from training.architectures import Autoencoder, build
from training.architectures.segmenter import Segmenter
from training.data import load_test
from training.evidence import NAMES, EvidenceName, Scene, Whitening
from training.recipe import Recipe

OVERRIDES = ["input.height=64", "input.width=48", "architecture.widths=[4, 8]", "architecture.code_channels=2"]


@pytest.fixture(scope="module")
def fitted() -> tuple[Recipe, Autoencoder]:
    """A network that knows the principal components only, which is what it starts with."""
    config = recipe.load("photo-anomaly", [*OVERRIDES, f"anomaly.evidence={list(NAMES)}"])
    torch.manual_seed(0)
    network = evidence_network(config)
    return config, network


def evidence_network(config: Recipe) -> Autoencoder:
    network = build(config.architecture, config.input)
    assert config.anomaly is not None
    network.segmenter = Segmenter(3, config.anomaly.segmenter)
    network.prepare(images(), len(images()))
    return network.eval()


def images(part: str = "train/good") -> torch.Tensor:
    return (cookies(part) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "segmenter"])  # which has to be trained
def test_what_is_no_cookie_is_stranger(fitted: tuple[Recipe, Autoencoder], name: EvidenceName) -> None:
    config, network = fitted
    found = detector.gather(network, config, images().numpy(), len(images()))[name]
    good = cookies("test/good")
    with torch.no_grad():
        (of_good, _), (of_others, _) = (found(scene(network, each)) for each in (good, digits()))
    assert of_others.median() > of_good.median()
    assert torch.isfinite(of_good).all()


@pytest.mark.parametrize("name", ["pixels", "gradients", "neighbours"])
def test_maps_show_what_is_spoilt(fitted: tuple[Recipe, Autoencoder], name: EvidenceName) -> None:
    config, network = fitted
    found = detector.gather(network, config, images().numpy(), len(images()))[name]
    spoilt = cookies("test/good")
    spoilt[:, :, 10:40, 10:36] = torch.rand(3, 30, 26, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, maps = found(scene(network, spoilt))
    assert maps is not None
    assert maps.shape == spoilt[:, 0].shape
    assert (maps[:, 15:35, 15:30].mean(dim=(1, 2)) > maps[:, 50:].mean(dim=(1, 2))).float().mean() > 0.8


def digits() -> torch.Tensor:
    grey = torch.from_numpy(load_test("mnist", DATA).images[:20]).permute(0, 3, 1, 2) / 255
    return functional.interpolate(grey, (64, 48), mode="bilinear").expand(-1, 3, -1, -1)


def scene(network: Autoencoder, seen: torch.Tensor) -> Scene:
    latents = network.encode(seen).mean
    return Scene(seen, network.decode(latents), latents)


def test_a_segmenter_gives_its_logits(fitted: tuple[Recipe, Autoencoder]) -> None:
    _, network = fitted
    found = evidence.build("segmenter", network, [], torch.Generator(), 0)
    with torch.no_grad():
        numbers, maps = found(scene(network, cookies()))
    assert maps is not None
    torch.testing.assert_close(numbers, maps.amax(dim=(1, 2)))


def test_the_whitening_is_that_of_the_shrunk_covariance() -> None:
    generator = np.random.default_rng(0)
    vectors = (generator.standard_normal((50, 4)) * [5, 2, 1, 0.1]).astype(np.float32)
    covariance = np.cov(vectors.T.astype(np.float64), bias=True)
    shrunk = covariance + evidence.SHRINKAGE * np.linalg.eigvalsh(covariance)[-1] * np.eye(4)
    strange = generator.standard_normal((7, 4)).astype(np.float32) * 3
    centred = strange - vectors.mean(axis=0)
    expected = np.sqrt(np.einsum("nd,de,ne->n", centred, np.linalg.inv(shrunk), centred))
    found = Whitening(torch.from_numpy(vectors), len(vectors))(torch.from_numpy(strange))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_coreset_leaves_nothing_far_from_it() -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]])
    generator = torch.Generator().manual_seed(0)
    crowd = (corners[:, None] + 0.1 * torch.rand(4, 25, 2, generator=generator)).flatten(0, 1)
    chosen = evidence.coreset(crowd, 4, generator)
    assert torch.cdist(corners, chosen).amin(dim=1).max() < 0.2


def test_what_the_encoder_has_seen_has_a_neighbour(fitted: tuple[Recipe, Autoencoder]) -> None:
    config, network = fitted
    known = images()
    found = detector.gather(network, config, known.numpy(), len(known))
    spoilt = synthetic.spoil(cookies("train/good"), torch.Generator().manual_seed(0)).images
    with torch.no_grad():
        near, _ = found["scattering-neighbours"](scene(network, cookies("train/good")))
        far, _ = found["scattering-neighbours"](scene(network, spoilt))
    assert near.mean() < far.mean()
