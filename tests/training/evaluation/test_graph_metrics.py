from pathlib import Path

import pytest
import torch

from bundle.manifest import ModelManifest
from tests.conftest import DATA
from training.architectures import Posterior
from training.data.mnist import load_test
from training.evaluation import graph_metrics
from training.export.published import load_newest
from training.recipe import Recipe
from training.trainer.losses import importance_weighted_loss


def test_the_likelihood_is_the_one_that_torch_finds(
    published: Path, manifest: ModelManifest
) -> None:
    """Importance sampling agrees with the training's bound, which is another implementation."""
    if manifest.name != "mnist-vae":
        pytest.skip("this model has no likelihood")
    images = graph_metrics.binarise(load_test("mnist", DATA).images[:4])
    graphs = load_newest(published.parent.parent, manifest.name).graphs
    config = Recipe.model_validate(manifest.provenance.recipe).loss
    found = graph_metrics.negative_log_likelihood(graphs, images, config, samples=400)

    encoded = graphs.chain(["encoder"], images=images)
    posterior = Posterior(
        *(torch.from_numpy(encoded[name]) for name in ("latents", "log_variances"))
    )
    noise = torch.randn(400, 4, manifest.latent_dim, generator=torch.Generator().manual_seed(1))
    latents = posterior.sample(noise).flatten(0, 1).numpy()
    raw = torch.from_numpy(graphs.chain(["decoder"], latents=latents)["logits"]).view(
        400, 4, 28, 28, 1
    )
    clean = torch.from_numpy(images).float() / 255
    expected = 784 * importance_weighted_loss(raw, clean, posterior, noise, config).mean().item()
    assert found == pytest.approx(expected, rel=0.01)
    assert -graph_metrics.elbo(graphs, images, config) >= found - 1
