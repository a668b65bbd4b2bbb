"""What training minimises: reconstruction, and for a variational model the negative evidence lower bound."""

from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from training.architectures.base import Autoencoder, Config, Posterior


class LossConfig(Config):
    reconstruction: Literal["mse", "bce"] = "mse"  # squared error, or cross-entropy of a Bernoulli pixel
    beta: NonNegativeFloat = 1.0  # weight of the KL divergence (Higgins et al. 2017); 1 is the evidence lower bound


def kl_divergence(posterior: Posterior) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, (batch,); 0 where there is no variance (Kingma and Welling 2014, appendix B)."""
    mean, log_variance = posterior
    if log_variance is None:
        return torch.zeros(len(mean), device=mean.device)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def training_loss(
    model: Autoencoder,
    corrupted: Tensor,
    clean: Tensor,
    config: LossConfig,
    generator: torch.Generator,
    bfloat16: bool = False,
) -> Tensor:
    """Mean over the batch of reconstruction plus beta times KL divergence, both per pixel: a scalar.

    `bfloat16` runs the networks, but not the loss, in mixed precision.
    """
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=bfloat16):
        encoded = model.encode(corrupted)
    # Divergence and reconstruction are differences of nearly equal numbers: bfloat16 would lose them.
    log_variance = None if encoded.log_variance is None else encoded.log_variance.float()
    posterior = Posterior(encoded.mean.float(), log_variance)
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=bfloat16):
        raw = model.decode_raw(posterior.sample(generator)).float()
    if config.reconstruction == "bce":
        reconstruction = functional.binary_cross_entropy_with_logits(raw, clean)
    else:
        reconstruction = functional.mse_loss(model.output(raw), clean)
    return reconstruction + config.beta * kl_divergence(posterior).mean() / clean[0].numel()
