import torch
from torch.nn import functional

from tests.training.conftest import tiny
from tests.training.trainer.test_losses import GREY
from training.architectures import build
from training.data.augmentation import RandomChanges
from training.data.splits import Split, TrainingSplits
from training.pipeline.plan import plan_stages
from training.trainer.losses import (
    kl_divergence,
)
from training.trainer.objectives import Batch, ReconstructionObjective


def test_the_objective_is_reconstruction_plus_weighted_divergence_per_pixel() -> None:
    recipe = tiny("mnist-vae", "loss.beta=2.0")
    model = build(recipe.architecture, GREY)
    objective = ReconstructionObjective(model, RandomChanges(), recipe.loss, mixed=False)
    batch = Batch(torch.randint(0, 256, (2, 28, 28, 1), dtype=torch.uint8), None)
    corrupted, clean, noise = objective.draw(batch, torch.Generator().manual_seed(0))
    posterior = model.encode(corrupted)
    restored = model.decode(posterior.sample(noise[:, 0]))
    expected = (
        functional.binary_cross_entropy(restored, clean) + 2 * kl_divergence(posterior).mean() / 784
    )
    torch.testing.assert_close(objective(corrupted, clean, noise), expected)


def test_binarised_images_are_input_and_target() -> None:
    recipe = tiny("mnist-vae")
    images = torch.randint(0, 256, (2, 28, 28, 1), dtype=torch.uint8)
    given = Split(images.numpy())
    splits = TrainingSplits(training=given, validation=given, calibration=given)
    (stage,) = plan_stages(recipe, build(recipe.architecture, GREY), splits)
    generator = torch.Generator().manual_seed(0)
    inputs, targets, _ = stage.objective.draw(Batch(images, None), generator)
    assert inputs is targets
    assert set(inputs.flatten().tolist()) == {0.0, 1.0}
