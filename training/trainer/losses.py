"""What training minimises: how far a reconstruction is from its image, and how far a posterior is from the prior."""

import math
from typing import Literal, Self

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor
from torch.distributions import ContinuousBernoulli
from torch.nn import functional

from training.architectures.base import Autoencoder, Posterior
from training.config import Config
from training.image_ops import ssim

LIKELIHOODS = {
    "bce": "sigmoid",
    "continuous-bernoulli": "continuous-bernoulli",
}  # and the outputs that they need


class LossConfig(Config):
    """How reconstructions are compared with images.

    `mse`: mean squared error. `psnr`: its logarithm for each image, so that the mean PSNR is what is optimised. `ssim`:
    1 - SSIM (Wang et al. 2004). `bce`: negative logarithm of a Bernoulli likelihood. `continuous-bernoulli`: of the
    continuous Bernoulli's, for grey levels (Loaiza-Ganem and Cunningham 2019).
    """

    kind: Literal["mse", "psnr", "ssim", "bce", "continuous-bernoulli"] = "mse"
    # Weight of the KL divergence (Higgins et al. 2017); 1, with a likelihood: the evidence lower bound.
    beta: NonNegativeFloat = 1.0
    samples: PositiveInt = (
        1  # of the posterior for each image; more than one is the bound of Burda et al. 2016
    )

    @property
    def is_likelihood(self) -> bool:
        return self.kind in LIKELIHOODS

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.samples > 1 and self.beta != 1:
            raise ValueError(
                "loss.samples above 1 is a bound on the likelihood only if loss.beta is 1"
            )
        return self


def kl_divergence(posterior: Posterior) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, (batch,); 0 where there is no variance (Kingma and Welling 2014, appendix B)."""
    mean, log_variance = posterior
    if log_variance is None:
        return torch.zeros(len(mean), device=mean.device)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def log_likelihood(raw: Tensor, images: Tensor, config: LossConfig) -> Tensor:
    """Logarithm of the likelihood of each pixel given the logits `raw`, in nats; `images` may be broadcast."""
    if config.kind == "bce":
        return -functional.binary_cross_entropy_with_logits(
            raw, images.expand_as(raw), reduction="none"
        )
    log_prob: Tensor = ContinuousBernoulli(logits=raw, validate_args=False).log_prob(images)  # type: ignore[no-untyped-call]
    return log_prob


def reconstruction_loss(
    model: Autoencoder, raw: Tensor, images: Tensor, config: LossConfig
) -> Tensor:
    """(batch,): for a likelihood nats a pixel, else what `config.kind` says."""
    if config.is_likelihood:
        return -log_likelihood(raw, images, config).mean(dim=(1, 2, 3))
    restored: Tensor = model.output(raw)
    if config.kind == "ssim":
        return 1 - ssim(restored, images)
    # A sum that is divided, for the gradient of a mean is first spread over all pixels and then divided.
    errors = (
        functional.mse_loss(restored, images, reduction="none").sum(dim=(1, 2, 3))
        / images[0].numel()
    )
    return (errors + 1e-5).log() if config.kind == "psnr" else errors


def importance_weighted_loss(
    raw: Tensor, images: Tensor, posterior: Posterior, noise: Tensor, config: LossConfig
) -> Tensor:
    """Negative importance-weighted bound in nats a pixel, (batch,) (Burda et al. 2016, equation 8).

    `raw` is (samples, batch, channels, height, width); `noise`, with which the latents were drawn, is (samples, batch,
    latent_dim).
    """
    assert posterior.log_variance is not None
    latents = posterior.sample(noise)
    log_prior = -0.5 * latents.square().sum(dim=2)
    log_posterior = -0.5 * (noise.square() + posterior.log_variance).sum(
        dim=2
    )  # the constants cancel
    weights = log_likelihood(raw, images, config).sum(dim=(2, 3, 4)) + log_prior - log_posterior
    bound = weights.logsumexp(dim=0) - math.log(len(noise))
    return -bound / images[0].numel()
