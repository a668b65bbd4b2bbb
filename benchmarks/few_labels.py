"""Measure accuracy with few labels, with and without unsupervised pre-training.

    python -m benchmarks.few_labels [--data DIR] [--seeds 3] [--output docs/results/labels.json]

The network is the one of the recipe `mnist-classifier`. It is fine-tuned on few labelled images,
with equal numbers of each class, from one of two starts:

- pre-trained: as a denoising autoencoder, with half of the pixels masked (Vincent et al. 2008), on
  all 54,000 training images without their labels;
- from the start: with random weights.

Everything else is the same: 3,000 steps, and no augmentation, because it would compensate for
missing labels. The baseline is a logistic regression on principal components of all images, with as
many components as the network has latent dimensions.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from training import recipe
from training.architectures import Classifier, build
from training.data import mnist, splits
from training.data.splits import Split, TrainingSplits, take_balanced
from training.evaluation.baselines import PrincipalComponents
from training.image_ops import to_float
from training.pipeline.plan import plan_stages
from training.recipe import Recipe
from training.trainer import loop
from training.trainer.checkpoint import Checkpoints
from training.trainer.distributed import Process, open_process

NO_AUGMENTATION = "augmentation={}"
MASKING = "corruption.masking=0.5"  # selected on held-out training images
EPOCH_STEPS = 300  # images are repeated, because few images would make epochs of two steps
PCA = "regression on principal components"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_labels", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of MNIST; without it, it is downloaded"
    )
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[100, 1_000, 10_000], help="(%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=3_000, help="of fine-tuning (%(default)s)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override the recipe's entry",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/results/labels.json"),
        metavar="JSON",
        help="(%(default)s)",
    )
    options = parser.parse_args()
    everything, test = (
        mnist.load_training("mnist", options.data),
        mnist.load_test("mnist", options.data),
    )
    accuracies: dict[str, dict[int, list[float]]] = {
        "pre-trained": {},
        "from the start": {},
        PCA: {},
    }
    with open_process() as here:
        for seed in range(options.seeds):
            for count, name, accuracy in _compare(seed, everything, test, here, options):
                accuracies[name].setdefault(count, []).append(accuracy)
                print(f"seed {seed}, {count} labels, {name}: {accuracy:.4f}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({"steps": options.steps, "accuracy": accuracies}, indent=1) + "\n"
    )


def _compare(
    seed: int, everything: Split, test: Split, here: Process, options: argparse.Namespace
) -> Iterator[tuple[int, str, float]]:
    """Accuracy of each method with one seed, by number of labels."""
    overrides = [NO_AUGMENTATION, *options.set, f"seed={seed}"]
    masked = recipe.load_network("mnist-classifier", [*overrides, MASKING])
    divided = splits.split(everything, masked.data.calibration, masked.data.validation, seed)
    fresh = _build_network(masked)
    trained = _train(copy.deepcopy(fresh), masked, divided, here, stage="autoencoder")
    components = PrincipalComponents(divided.training.images, fresh.autoencoder.latent_dim, seed)
    for count in options.labels:
        batches = _plan_batches(count, options.steps)
        few = recipe.load_network("mnist-classifier", [*overrides, *batches])
        labelled = take_balanced(divided.training, count)
        assert labelled.labels is not None  # take_balanced needs them
        yield count, PCA, components.measure_accuracy(labelled.images, labelled.labels, test)
        repeated = replace(divided, training=_repeat(labelled, few, options.steps))
        for name, start in (("pre-trained", trained), ("from the start", fresh)):
            network = _train(copy.deepcopy(start), few, repeated, here, stage="classifier")
            yield count, name, _measure_accuracy(network, test)


def _build_network(chosen: Recipe) -> Classifier:
    torch.manual_seed(chosen.seed)
    return Classifier(build(chosen.architecture, chosen.input), classes=10)


def _plan_batches(count: int, steps: int) -> list[str]:
    """Overrides for batches that `count` images can fill, and for epochs of about 300 steps."""
    size, epochs = min(100, max(1, count // 2)), max(1, steps // EPOCH_STEPS)
    return [f"classifier.training.batch_size={size}", f"classifier.training.epochs={epochs}"]


def _repeat(few: Split, chosen: Recipe, steps: int) -> Split:
    """The images, repeated to fill an epoch; the network is validated after each epoch."""
    assert chosen.classifier
    training = chosen.classifier.training
    return few.take(np.arange(steps // training.epochs * training.batch_size) % len(few))


def _train(
    network: Classifier, chosen: Recipe, divided: TrainingSplits, here: Process, stage: str
) -> Classifier:
    planned = plan_stages(chosen, network, divided)
    (only,) = (each for each in planned if each.name == stage)
    with tempfile.TemporaryDirectory() as directory:
        loop.train(
            [only],
            chosen.seed,
            Checkpoints(Path(directory), chosen.fingerprint(stage)),
            here,
            print,
        )
    return network


@torch.no_grad()
def _measure_accuracy(network: Classifier, test: Split) -> float:
    images, labels = test.tensors(torch.device("cpu"))
    assert labels is not None
    predicted = network.classify(network.autoencoder.encode(to_float(images)).mean).argmax(dim=1)
    return (predicted == labels).float().mean().item()


if __name__ == "__main__":
    main()
