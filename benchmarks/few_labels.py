"""What unsupervised pre-training is worth: accuracy with few labels, with and without it.

    python -m benchmarks.few_labels [--data DIR] [--seeds 3] [--output docs/results/labels.json]

The network of the recipe `mnist-classifier` is trained as a denoising autoencoder, with half of the pixels masked
(Vincent et al. 2008), on all 54,000 training images without their labels, then fine-tuned on the few that have one, as
many of each class; or it is fine-tuned from its random start.
Everything else is the same: no augmentation, so that nothing else makes up for the missing labels, and 3,000 steps.
Beside both stands a logistic regression on as many principal components, of all images, as the network has latent
dimensions.
"""

import argparse
import copy
import json
import tempfile
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

PLAIN = ["augmentation={}"]
MASKED = "corruption.masking=0.5"  # chosen on held-out training images
EPOCH = 300  # steps: few images alone would make epochs of two
PCA = "regression on principal components"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.few_labels", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where MNIST is; without it it is downloaded"
    )
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[100, 1_000, 10_000], help="how many (%(default)s)"
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
            overrides = [*PLAIN, *options.set, f"seed={seed}"]
            plain = recipe.load_network("mnist-classifier", [*overrides, MASKED])
            parts = splits.split(everything, plain.data.calibration, plain.data.validation, seed)
            labelled = {count: take_balanced(parts.training, count) for count in options.labels}
            few = {
                count: recipe.load_network(
                    "mnist-classifier", [*overrides, *_batches(count, options.steps)]
                )
                for count in options.labels
            }
            fresh = _network(plain)
            trained = _train(copy.deepcopy(fresh), plain, parts, here, stage="autoencoder")
            components = PrincipalComponents(
                parts.training.images, fresh.autoencoder.latent_dim, seed
            )
            for count in options.labels:
                images, labels = labelled[count].images, labelled[count].labels
                assert labels is not None  # they were chosen by them
                found = {PCA: components.measure_accuracy(images, labels, test)}
                repeated = replace(
                    parts, training=_repeat(labelled[count], few[count], options.steps)
                )
                for name, start in (("pre-trained", trained), ("from the start", fresh)):
                    network = _train(
                        copy.deepcopy(start), few[count], repeated, here, stage="classifier"
                    )
                    found[name] = _accuracy(network, test)
                for name, accuracy in found.items():
                    accuracies[name].setdefault(count, []).append(accuracy)
                    print(f"seed {seed}, {count} labels, {name}: {accuracy:.4f}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({"steps": options.steps, "accuracy": accuracies}, indent=1) + "\n"
    )


def _network(chosen: Recipe) -> Classifier:
    torch.manual_seed(chosen.seed)
    return Classifier(build(chosen.architecture, chosen.input), classes=10)


def _batches(count: int, steps: int) -> list[str]:
    """Overrides for batches that this many labels fill, and for epochs of about 300 steps."""
    size, epochs = min(100, max(1, count // 2)), max(1, steps // EPOCH)
    return [f"classifier.training.batch_size={size}", f"classifier.training.epochs={epochs}"]


def _repeat(few: Split, chosen: Recipe, steps: int) -> Split:
    """The images as often as fills an epoch, after which the network is validated and saved."""
    assert chosen.classifier
    training = chosen.classifier.training
    return few.take(np.arange(steps // training.epochs * training.batch_size) % len(few))


def _train(
    network: Classifier, chosen: Recipe, parts: TrainingSplits, here: Process, stage: str
) -> Classifier:
    (only,) = (planned for planned in plan_stages(chosen, network, parts) if planned.name == stage)
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
def _accuracy(network: Classifier, test: Split) -> float:
    images, labels = test.tensors(torch.device("cpu"))
    assert labels is not None
    answers = network.classify(network.autoencoder.encode(to_float(images)).mean).argmax(dim=1)
    return (answers == labels).float().mean().item()


if __name__ == "__main__":
    main()
