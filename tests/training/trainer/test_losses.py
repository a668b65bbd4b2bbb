import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from bundle.manifest import InputSpec
from tests.training.conftest import tiny
from training.architectures import Posterior, build
from training.trainer.losses import (
    LossConfig,
    importance_weighted_loss,
    kl_divergence,
    reconstruction_loss,
)

GREY = InputSpec(height=28, width=28, channels=1)


def test_the_kl_divergence_is_that_of_torchs_distributions() -> None:
    mean, log_variance = torch.randn(2, 4, 3)
    ours = kl_divergence(Posterior(mean, log_variance))
    normal = Normal(mean, (0.5 * log_variance).exp())
    reference = torch.distributions.kl_divergence(normal, Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(ours, reference)
    assert kl_divergence(Posterior(mean)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["mse", "psnr", "ssim", "bce", "continuous-bernoulli"])
def test_the_best_reconstruction_is_the_image_itself(kind: str) -> None:
    recipe = tiny("fashion-vae" if kind == "continuous-bernoulli" else "mnist-vae")
    model = build(recipe.architecture, GREY)
    images = (torch.rand(2, 1, 28, 28) > 0.5).float()
    config = LossConfig.model_validate({"kind": kind})
    best, worse = (
        reconstruction_loss(model, size * (2 * images - 1), images, config) for size in (10.0, 1.0)
    )
    assert best.shape == (2,)
    assert (best < worse).all()


def test_likelihoods_are_those_of_their_distributions_in_nats_a_pixel() -> None:
    model = build(tiny("mnist-vae").architecture, GREY)
    raw, images = torch.randn(2, 1, 28, 28), torch.rand(2, 1, 28, 28).round()
    found = reconstruction_loss(model, raw, images, LossConfig(kind="bce"))
    expected = -Bernoulli(logits=raw).log_prob(images)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, expected.mean(dim=(1, 2, 3)))
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64).view(-1, 1, 1, 1)
    for logit in (-5.0, -0.01, 0.0, 3.0):
        grey = LossConfig(kind="continuous-bernoulli")
        density = (-reconstruction_loss(model, torch.full_like(x, logit), x, grey)).exp()
        assert torch.trapezoid(density, x.flatten()).item() == pytest.approx(1, rel=1e-3)


def test_the_importance_weighted_bound_rises_with_the_samples_to_the_likelihood() -> None:
    """The likelihood of one pixel and one latent dimension can be integrated."""
    config = LossConfig(kind="bce")
    posterior = Posterior(torch.tensor([[0.5]]), torch.tensor([[-1.0]]))
    image = torch.ones(1, 1, 1, 1)
    z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    log_prior = Normal(0.0, 1.0).log_prob(z)  # type: ignore[no-untyped-call]
    likelihood = torch.trapezoid(log_prior.exp() * (3 * z).sigmoid(), z)

    def bound(samples: int, repeats: int) -> float:
        noise = torch.randn(samples, repeats, 1, generator=torch.Generator().manual_seed(0))
        many = Posterior(*(part.expand(repeats, 1) for part in posterior if part is not None))
        raw = 3 * many.sample(noise)[..., None, None]
        return float(
            -importance_weighted_loss(
                raw, image.expand(repeats, 1, 1, 1), many, noise, config
            ).mean()
        )

    one, ten, many = bound(1, 20_000), bound(10, 2_000), bound(5_000, 20)
    assert one < ten < many + 0.01
    assert many == pytest.approx(math.log(likelihood), abs=0.01)
