"""Objectives: the quantity that a stage of training minimises, as a module over a batch.

Random numbers are drawn in `draw`, for the whole batch and outside `forward`. So processes that
share a batch draw the same numbers.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.architectures import Autoencoder, Classifier, DenseAutoencoder, Posterior
from training.data.augmentation import RandomChanges, augment, binarise, corrupt, draw_normal
from training.image_ops import to_float
from training.trainer.config import ClassifierConfig
from training.trainer.losses import (
    LossConfig,
    importance_weighted_loss,
    kl_divergence,
    reconstruction_loss,
)

Inputs = tuple[Tensor, ...]


class Batch(NamedTuple):
    """Images uint8 (batch, height, width, channels), and the class index of each, if known."""

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class BatchMetrics:
    """Metrics of a batch, and its latents and outputs, (batch, ...), to detect a collapse."""

    metrics: dict[str, float]
    latents: Tensor
    outputs: Tensor


class Objective(nn.Module, ABC):
    """A loss of a network; with `mixed` the network computes in bfloat16."""

    def __init__(self, network: Autoencoder, mixed: bool) -> None:
        super().__init__()
        self.network = network
        self.mixed = mixed

    @property
    def trained(self) -> list[nn.Module]:
        """The modules whose weights this stage trains."""
        return [self.network.encoder, self.network.decoder]

    def autocast(self, images: Tensor) -> torch.autocast:
        """A context in which the network computes in bfloat16, if `mixed`."""
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed)

    @abstractmethod
    def draw(self, batch: Batch, generator: torch.Generator) -> Inputs:
        """Arguments of `forward` for a batch, each with the batch as its first dimension."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """The mean loss over the batch: a scalar."""

    @abstractmethod
    def measure(self, *inputs: Tensor) -> BatchMetrics:
        """Metrics of validation images."""


class ReconstructionObjective(Objective):
    """Reconstruction of the clean image; for a variational model, the evidence lower bound."""

    def __init__(
        self, network: Autoencoder, changes: RandomChanges, loss: LossConfig, mixed: bool
    ) -> None:
        super().__init__(network, mixed)
        self.changes, self.loss = changes, loss

    def draw(self, batch: Batch, generator: torch.Generator) -> Inputs:
        clean = to_float(batch.images)
        if self.training:
            clean = augment(clean, self.changes.augmentation, generator)
        if self.changes.binarise:
            clean = binarise(clean, generator)
        corrupted = corrupt(clean, self.changes.corruption, generator)
        if not self.network.variational:
            return corrupted, clean
        shape = (len(clean), self.loss.samples, self.network.latent_dim)
        return corrupted, clean, draw_normal(shape, generator)

    def forward(self, *inputs: Tensor) -> Tensor:
        corrupted, clean, *noise = inputs
        posterior = self._encode(corrupted)
        if noise and self.loss.samples > 1:
            return self._importance_weighted(posterior, clean, noise[0].transpose(0, 1))
        latents = posterior.sample(noise[0][:, 0]) if noise else posterior.mean
        with self.autocast(clean):
            raw = self.network.decode_raw(latents).float()
        loss = reconstruction_loss(self.network, raw, clean, self.loss)
        if self.network.variational:
            loss = loss + self.loss.beta * kl_divergence(posterior) / clean[0].numel()
        return loss.mean()

    def measure(self, *inputs: Tensor) -> BatchMetrics:
        corrupted, clean, *_ = inputs
        loss = self(*inputs)
        posterior = self.network.encode(corrupted)
        outputs = self.network.decode(self.network.refine(corrupted, posterior).mean)
        mse = (outputs - clean).square().mean()
        return BatchMetrics({"loss": loss.item(), "mse": mse.item()}, posterior.mean, outputs)

    def _encode(self, images: Tensor) -> Posterior:
        with self.autocast(images):
            encoded = self.network.encode(images)
        # The loss has differences of nearly equal numbers, which bfloat16 would lose.
        log_variance = None if encoded.log_variance is None else encoded.log_variance.float()
        return Posterior(encoded.mean.float(), log_variance)

    def _importance_weighted(self, posterior: Posterior, clean: Tensor, noise: Tensor) -> Tensor:
        latents = posterior.sample(noise)
        with self.autocast(clean):
            raw = self.network.decode_raw(latents.flatten(0, 1)).float()
            raw = raw.view(*noise.shape[:2], *clean.shape[1:])
        return importance_weighted_loss(raw, clean, posterior, noise, self.loss).mean()


class LayerObjective(Objective):
    """Reconstruction of the activations of the layer below.

    Greedy layer-wise pre-training, Bengio et al. 2007, section 3.
    """

    network: DenseAutoencoder

    def __init__(self, network: DenseAutoencoder, layer: int) -> None:
        super().__init__(network, mixed=False)
        self.layer = layer

    @property
    def trained(self) -> list[nn.Module]:
        return list(self._pair)

    @property
    def _pair(self) -> tuple[nn.Module, nn.Module]:
        return self.network.encoder[self.layer], self.network.decoder[-1 - self.layer]

    def draw(self, batch: Batch, _: torch.Generator) -> Inputs:
        below = self.network.flatten(to_float(batch.images))
        with torch.no_grad():
            for layer in list(self.network.encoder)[: self.layer]:
                below = layer(below)
        return (below,)

    def forward(self, *inputs: Tensor) -> Tensor:
        (below,) = inputs
        return functional.mse_loss(self._through(below)[1], below)

    def measure(self, *inputs: Tensor) -> BatchMetrics:
        (below,) = inputs
        latents, outputs = self._through(below)
        return BatchMetrics({"loss": functional.mse_loss(outputs, below).item()}, latents, outputs)

    def _through(self, below: Tensor) -> tuple[Tensor, Tensor]:
        inward, outward = self._pair
        latents = inward(below)
        restored = outward(latents)
        return latents, self.network.output(restored) if self.layer == 0 else restored


class ClassificationObjective(Objective):
    """Classification and reconstruction: a supervised autoencoder.

    Le, Patterson and White 2018, section 2.
    """

    def __init__(
        self,
        classifier: Classifier,
        changes: RandomChanges,
        loss: LossConfig,
        config: ClassifierConfig,
    ) -> None:
        super().__init__(classifier.autoencoder, config.training.precision == "bfloat16")
        self.head = classifier.head
        self.changes, self.loss, self.config = changes, loss, config

    @property
    def trained(self) -> list[nn.Module]:
        decoders = [self.network.decoder] if self._reconstructs else []
        return [self.network.encoder, self.head, *decoders]

    def draw(self, batch: Batch, generator: torch.Generator) -> Inputs:
        assert batch.labels is not None  # the pipeline refuses data without labels
        clean = to_float(batch.images)
        if self.training:
            clean = augment(clean, self.changes.augmentation, generator)
            return corrupt(clean, self.changes.corruption, generator), clean, batch.labels
        return clean, clean, batch.labels

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._losses(*inputs)[0]

    def measure(self, *inputs: Tensor) -> BatchMetrics:
        loss, logits, latents, raw = self._losses(*inputs)
        _, clean, labels = inputs
        restored = self.network.output(raw)
        error = (logits.argmax(dim=1) != labels).float().mean()
        mse = (restored - clean).square().mean()
        outputs = restored if self._reconstructs else logits
        return BatchMetrics(
            {"loss": loss.item(), "error_rate": error.item(), "mse": mse.item()}, latents, outputs
        )

    @property
    def _reconstructs(self) -> bool:
        return self.config.reconstruction > 0

    def _losses(
        self, corrupted: Tensor, clean: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with self.autocast(clean):
            latents = self.network.encode(corrupted).mean.float()
            logits = self.head(latents).float()
            raw = self.network.decode_raw(latents).float()
        classification = functional.cross_entropy(
            logits, labels, label_smoothing=self.config.label_smoothing
        )
        reconstruction = reconstruction_loss(self.network, raw, clean, self.loss).mean()
        loss = classification + self.config.reconstruction * reconstruction
        return loss, logits, latents, raw
