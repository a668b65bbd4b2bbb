"""Losses: errors of reconstructions, and divergences of posteriors from the prior."""

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

# Losses that are likelihoods, and the output that each needs.
LIKELIHOODS = {"bce": "sigmoid", "continuous-bernoulli": "continuous-bernoulli"}


class LossConfig(Config):
    """Loss of a reconstruction against its image.

    - `mse`: mean squared error.
    - `psnr`: its logarithm for each image, which optimises the mean PSNR.
    - `ssim`: 1 - SSIM (Wang et al. 2004).
    - `bce`: negative logarithm of a Bernoulli likelihood.
    - `continuous-bernoulli`: negative logarithm of a continuous Bernoulli likelihood, for grey
      levels (Loaiza-Ganem and Cunningham 2019).
    """

    kind: Literal["mse", "psnr", "ssim", "bce", "continuous-bernoulli"] = "mse"
    """Loss of a reconstruction; `bce` and `continuous-bernoulli` are likelihoods."""
    beta: NonNegativeFloat = 1.0
    """Weight of the KL divergence of a variational network (Higgins et al. 2017).

    With a likelihood, 1 gives the evidence lower bound.
    """
    samples: PositiveInt = 1
    """Samples of the posterior for each image.

    More than one gives the importance-weighted bound of Burda et al. 2016.
    """

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
    """KL(q(z|x) || N(0, I)) in nats, (batch,); 0 if there is no variance.

    Kingma and Welling 2014, appendix B.
    """
    mean, log_variance = posterior
    if log_variance is None:
        return torch.zeros(len(mean), device=mean.device)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def log_likelihood(raw: Tensor, images: Tensor, config: LossConfig) -> Tensor:
    """Log-likelihood of each pixel under the logits `raw`, in nats; `images` may be broadcast."""
    if config.kind == "bce":
        return -functional.binary_cross_entropy_with_logits(
            raw, images.expand_as(raw), reduction="none"
        )
    distribution = ContinuousBernoulli(logits=raw, validate_args=False)
    log_prob: Tensor = distribution.log_prob(images)  # type: ignore[no-untyped-call]
    return log_prob


def reconstruction_loss(
    model: Autoencoder, raw: Tensor, images: Tensor, config: LossConfig
) -> Tensor:
    """Loss of each image, (batch,): nats a pixel for a likelihood, else the unit of the kind."""
    if config.is_likelihood:
        return -log_likelihood(raw, images, config).mean(dim=(1, 2, 3))
    restored: Tensor = model.output(raw)
    if config.kind == "ssim":
        return 1 - ssim(restored, images)
    # A divided sum, because the gradient of `mean` expands to all pixels before it is divided.
    squares = functional.mse_loss(restored, images, reduction="none")
    errors = squares.sum(dim=(1, 2, 3)) / images[0].numel()
    return (errors + 1e-5).log() if config.kind == "psnr" else errors


def importance_weighted_loss(
    raw: Tensor, images: Tensor, posterior: Posterior, noise: Tensor, config: LossConfig
) -> Tensor:
    """Negative importance-weighted bound in nats a pixel, (batch,) (Burda et al. 2016, equation 8).

    `raw` is (samples, batch, channels, height, width). `noise` is (samples, batch, latent_dim); the
    latents were drawn with it.
    """
    assert posterior.log_variance is not None
    latents = posterior.sample(noise)
    log_prior = -0.5 * latents.square().sum(dim=2)
    # The constants of prior and posterior cancel.
    log_posterior = -0.5 * (noise.square() + posterior.log_variance).sum(dim=2)
    weights = log_likelihood(raw, images, config).sum(dim=(2, 3, 4)) + log_prior - log_posterior
    bound = weights.logsumexp(dim=0) - math.log(len(noise))
    return -bound / images[0].numel()
