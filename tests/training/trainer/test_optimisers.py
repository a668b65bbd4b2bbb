import pytest
import torch
from torch import nn

from tests.training.conftest import tiny
from training.trainer.optimisers import MuonConfig, ScheduleConfig, build_optimiser, build_schedule


@pytest.mark.parametrize("shape", [(32, 48), (48, 32), (24, 4, 3, 3)])
def test_muon_moves_a_matrix_as_far_in_every_direction(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    step(weight)
    moves = torch.linalg.svdvals((weight.detach() - before).flatten(1))
    assert moves.max() < 2 * moves.min()
    root_mean_square = (weight.detach() - before).square().mean().sqrt().item()
    assert root_mean_square == pytest.approx(
        0.2 * 0.01, rel=0.4
    )  # AdamW's usual one, with a learning rate of 0.01


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (48, 1, 4, 4), (48,)])
def test_muon_leaves_thin_weights_to_adamw(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    step(weight)
    torch.testing.assert_close((weight.detach() - before).abs(), torch.full(shape, 0.01))


def test_a_schedule_reaches_both_parts_of_muon_after_a_resume() -> None:
    weights = [nn.Parameter(torch.zeros(32, 32)), nn.Parameter(torch.zeros(32))]
    optimiser = build_optimiser(MuonConfig(learning_rate=0.01), weights)
    optimiser.load_state_dict(optimiser.state_dict())
    schedule = build_schedule(ScheduleConfig(), optimiser, steps=10)
    for _ in range(10):
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimiser.step()
        schedule.step()
    for weight, old in zip(weights, before, strict=True):
        assert 0 < (weight.detach() - old).abs().max() < 1e-6


def test_the_momentum_is_the_one_of_the_recipe() -> None:
    for kind, expected in (("rmsprop", 0.3), ("sgd", 0.3)):
        recipe = tiny("mnist-undercomplete", f"optimiser.kind={kind}", "optimiser.momentum=0.3")
        optimiser = build_optimiser(recipe.optimiser, [nn.Parameter(torch.zeros(1))])
        build_schedule(recipe.schedule, optimiser, 10)
        assert optimiser.param_groups[0]["momentum"] == expected


def step(weight: nn.Parameter) -> None:
    optimiser = build_optimiser(MuonConfig(learning_rate=0.01), [weight])
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    optimiser.step()
    optimiser.zero_grad()
    assert weight.grad is None
