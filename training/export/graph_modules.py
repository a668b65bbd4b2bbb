"""Modules that are exported as the graphs of a bundle."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bundle.tensors import Images
from training.architectures import Autoencoder, Classifier
from training.detector.whitening import LatentDistance
from training.export.graph_runner import BATCH
from training.image_ops import to_float


class EncoderGraph(nn.Module):
    """uint8 (batch, height, width, channels) to latents, and for a variational model log variances."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        intensities = to_float(images)
        posterior = self.model.refine(intensities, self.model.encode(intensities))
        return tuple(output for output in posterior if output is not None)


class DecoderGraph(nn.Module):
    """Latents to uint8 images, to the intensities in 0..1 that these were rounded from, and if asked to the logits."""

    def __init__(self, model: Autoencoder, likelihood: bool) -> None:
        super().__init__()
        self.model = model
        self.likelihood = likelihood

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        raw = self.model.decode_raw(latents)
        intensities = self.model.output(raw)
        # Before the channels go last: where the last dimension is 1, ONNX Runtime takes numbers one by one.
        images = (intensities * 255).round().clamp(0, 255).to(torch.uint8)
        outputs = (images, intensities, raw) if self.likelihood else (images, intensities)
        return tuple(output.permute(0, 2, 3, 1) for output in outputs)


class ClassifierGraph(nn.Module):
    """Latents to the probabilities of the classes."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, latents: Tensor) -> Tensor:
        return self.classifier.classify(latents)


class ErrorScorer(nn.Module):
    """Images and intensities to the mean squared error, which is also the anomaly score, and its map."""

    def forward(self, images: Tensor, intensities: Tensor) -> tuple[Tensor, ...]:
        difference = images.flatten(1).float() / 255 - intensities.flatten(
            1
        )  # flat for speed, as in DecoderGraph
        squared = difference * difference
        errors = squared.mean(dim=1)
        maps = squared.view(images.shape)
        return errors, errors.clone(), maps.squeeze(3) if images.shape[3] == 1 else maps.mean(dim=3)


class ErrorAndDistanceScorer(nn.Module):
    """The outputs of an ErrorScorer, and the distance of the latents from those of the training images."""

    def __init__(self, distance: LatentDistance) -> None:
        super().__init__()
        self.error, self.distance = ErrorScorer(), distance

    def forward(self, images: Tensor, intensities: Tensor, latents: Tensor) -> tuple[Tensor, ...]:
        return *self.error(images, intensities), self.distance(latents)


@torch.no_grad()
def build_scorer(model: Autoencoder, training: Images) -> ErrorAndDistanceScorer:
    """The scorer of a model, with the latents of its training images, uint8 (n, height, width, channels)."""
    encoder = EncoderGraph(model.eval())
    batches = (
        torch.from_numpy(training[start : start + BATCH])
        for start in range(0, len(training), BATCH)
    )
    latents = torch.cat([encoder(batch)[0] for batch in batches])
    return ErrorAndDistanceScorer(LatentDistance(latents, len(training)))


@dataclass(frozen=True)
class Graph:
    """A module to export: its example arguments, by the names of the graph's inputs, and its outputs' names."""

    module: nn.Module
    arguments: dict[str, Tensor]
    outputs: Sequence[str]
