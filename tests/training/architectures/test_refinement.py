from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bundle.manifest import InputSpec
from bundle.tensors import TensorName
from tests.conftest import DATA
from tests.training.conftest import tiny
from training import recipe
from training.architectures import Autoencoder, build
from training.architectures.dense import ResidualDenseConfig
from training.architectures.refinement import DAMPING, DIFFERENCE_STEP, solve, step_towards
from training.data.augmentation import RandomChanges
from training.data.mnist import load_test
from training.errors import RecipeError
from training.export import onnx_export
from training.export.graph_modules import EncoderGraph, Graph
from training.export.graph_runner import Graphs
from training.image_ops import to_float
from training.trainer import collapse
from training.trainer.objectives import Batch, ReconstructionObjective

GREY = InputSpec(height=28, width=28, channels=1)
CONFIG = ResidualDenseConfig(width=12, blocks=1, latent_dim=3, code_activation="tanh", refinement=2)


def last_layer(part: nn.Module) -> nn.Linear:
    *_, layer = (module for module in part.modules() if isinstance(module, nn.Linear))
    return layer


def responsive(config: ResidualDenseConfig) -> Autoencoder:
    """A network whose decoder heeds its code more than one that was never trained."""
    torch.manual_seed(0)
    model = build(config, GREY).eval()
    with torch.no_grad():
        for parameter in last_layer(model.decoder).parameters():
            parameter.mul_(5)
    return model


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_small_systems_are_solved(size: int) -> None:
    factor = torch.randn(
        5, size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64
    )
    matrix, right = factor @ factor.transpose(1, 2) + torch.eye(size), factor[:, :, :1]
    torch.testing.assert_close(solve(matrix, right), torch.linalg.solve(matrix, right))


def test_a_step_is_the_damped_one_of_gauss_and_newton() -> None:
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    images = torch.randn(5, 1, 4, 5, generator=generator, dtype=torch.float64)
    latents = 0.3 * torch.randn(5, 3, generator=generator, dtype=torch.float64)

    def decode(
        codes: Tensor,
    ) -> Tensor:  # whose slope grows with the code, so that each image has its own
        return (codes.square().sum(dim=1, keepdim=True) * (codes @ slopes)).view(-1, 1, 4, 5)

    for image, code, found in zip(
        images, latents, step_towards(decode, images, latents), strict=True
    ):
        ahead, behind = (
            decode(code + sign * DIFFERENCE_STEP * torch.eye(3)).flatten(1) for sign in (1, -1)
        )
        jacobian = ((ahead - behind) / (2 * DIFFERENCE_STEP)).T
        normal = jacobian.T @ jacobian
        damped = normal + DAMPING * (1 + normal.trace() / 3) * torch.eye(3)
        step = torch.linalg.solve(
            damped, jacobian.T @ (image.flatten() - decode(code[None]).flatten())
        )
        torch.testing.assert_close(found, (code + step).clamp(-1, 1))


def test_codes_stay_in_their_range() -> None:
    def bright(codes: Tensor) -> Tensor:
        return codes.mean(dim=1)[:, None, None, None].expand(-1, 1, 2, 2)

    assert (
        step_towards(bright, torch.full((3, 1, 2, 2), 9.0), torch.zeros(3, 2)).tolist()
        == [[1.0, 1.0]] * 3
    )


def test_a_decoder_that_heeds_no_latent_leaves_them() -> None:
    latents = torch.tensor([[0.5, -0.25]])
    assert torch.equal(
        step_towards(
            lambda codes: torch.zeros(len(codes), 1, 2, 2), torch.ones(1, 1, 2, 2), latents
        ),
        latents,
    )


@pytest.mark.parametrize(
    ("latent_dim", "steps", "kept_error"), [(1, 1, 0.999), (3, 2, 0.98), (8, 1, 0.98)]
)
def test_served_latents_are_refined_and_fit_better(
    latent_dim: int, steps: int, kept_error: float, tmp_path: Path
) -> None:
    images = load_test("mnist", DATA).images
    model = responsive(CONFIG.model_copy(update={"latent_dim": latent_dim, "refinement": steps}))
    example: dict[TensorName, Tensor] = {"images": torch.from_numpy(images[:2])}
    onnx_export.write(Graph(EncoderGraph(model), example, ["latents"]), tmp_path / "encoder.onnx")
    intensities = to_float(torch.from_numpy(images))
    plain = model.encode(intensities)
    refined = model.refine(intensities, plain)
    served = Graphs(tmp_path, {"encoder": "encoder.onnx"}).chain(["encoder"], images=images)[
        "latents"
    ]
    torch.testing.assert_close(torch.from_numpy(served), refined.mean, rtol=0, atol=1e-5)
    before, after = (
        (model.decode(code.mean) - intensities).square().mean() for code in (plain, refined)
    )
    assert after < kept_error * before


def test_a_collapse_is_seen_behind_it() -> None:
    chosen = tiny("fashion-latent3")
    network = build(chosen.architecture, chosen.input).eval()
    with torch.no_grad():
        last_layer(network.encoder).weight.zero_()
    objective = ReconstructionObjective(network, RandomChanges(), chosen.loss, mixed=False)
    images = torch.from_numpy(load_test("fashion-mnist", DATA).images)
    measured = objective.measure(*objective.draw(Batch(images, None), torch.Generator()))
    assert collapse.count_dead_units(measured.latents, False) == 3


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"code_activation": "linear"}, r"refinement needs codes in -1\.\.1"),
        ({"variational": True}, r"refinement needs codes in -1\.\.1"),
        ({"latent_dim": 17}, "latent_dim is 17, and may be at most 16"),
    ],
)
def test_it_is_of_small_bounded_codes_only(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ResidualDenseConfig.model_validate(CONFIG.model_dump() | changed)


def test_it_needs_a_decoder_that_is_trained() -> None:
    refined = [
        "architecture.code_activation=tanh",
        "architecture.refinement=1",
        "architecture.latent_dim=8",
    ]
    assert recipe.load_network("mnist-classifier", refined).classifier
    with pytest.raises(RecipeError, match="needs a decoder that is trained"):
        recipe.load_network("mnist-classifier", [*refined, "classifier.reconstruction=0"])
