"""Modules that are exported as the graphs of a bundle."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bundle.tensors import Images, TensorName
from training.architectures import Autoencoder, Classifier
from training.detector.whitening import LatentDistance
from training.export.graph_runner import BATCH_IMAGES
from training.image_ops import to_float


class EncoderGraph(nn.Module):
    """Graph from uint8 (batch, height, width, channels) to latents.

    A variational model has log variances, too.
    """

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        intensities = to_float(images)
        posterior = self.model.refine(intensities, self.model.encode(intensities))
        return tuple(output for output in posterior if output is not None)


class DecoderGraph(nn.Module):
    """Graph from latents to uint8 images and their unrounded intensities in 0..1.

    With `likelihood` it has the logits, too.
    """

    def __init__(self, model: Autoencoder, likelihood: bool) -> None:
        super().__init__()
        self.model = model
        self.likelihood = likelihood

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        raw = self.model.decode_raw(latents)
        intensities = self.model.output(raw)
        # Rounded before the transpose: ONNX Runtime is slow if the last dimension is 1.
        images = (intensities * 255).round().clamp(0, 255).to(torch.uint8)
        outputs = (images, intensities, raw) if self.likelihood else (images, intensities)
        return tuple(output.permute(0, 2, 3, 1) for output in outputs)


class ClassifierGraph(nn.Module):
    """Graph from latents to the probabilities of the classes."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, latents: Tensor) -> Tensor:
        return self.classifier.classify(latents)


class ErrorScorer(nn.Module):
    """Graph from images and intensities to errors, anomaly scores and error maps.

    The error is the mean squared error, which is also the anomaly score.
    """

    def forward(self, images: Tensor, intensities: Tensor) -> tuple[Tensor, ...]:
        # Flat for speed, because the last dimension may be 1, as in DecoderGraph.
        difference = images.flatten(1).float() / 255 - intensities.flatten(1)
        squared = difference * difference
        errors = squared.mean(dim=1)
        maps = squared.view(images.shape)
        return errors, errors.clone(), maps.squeeze(3) if images.shape[3] == 1 else maps.mean(dim=3)


class ErrorAndDistanceScorer(nn.Module):
    """An ErrorScorer with the distance between the latents and the latents of training images."""

    def __init__(self, distance: LatentDistance) -> None:
        super().__init__()
        self.error, self.distance = ErrorScorer(), distance

    def forward(self, images: Tensor, intensities: Tensor, latents: Tensor) -> tuple[Tensor, ...]:
        return *self.error(images, intensities), self.distance(latents)


@torch.no_grad()
def build_scorer(model: Autoencoder, training: Images) -> ErrorAndDistanceScorer:
    """Build the scorer of a model from its training images, uint8 (n, height, width, channels)."""
    encoder = EncoderGraph(model.eval())
    batches = (
        torch.from_numpy(training[start : start + BATCH_IMAGES])
        for start in range(0, len(training), BATCH_IMAGES)
    )
    latents = torch.cat([encoder(batch)[0] for batch in batches])
    return ErrorAndDistanceScorer(LatentDistance(latents, len(training)))


@dataclass(frozen=True)
class Graph:
    """A module to export."""

    module: nn.Module
    arguments: dict[TensorName, Tensor]  # examples, by the names of the graph's inputs
    outputs: Sequence[TensorName]
