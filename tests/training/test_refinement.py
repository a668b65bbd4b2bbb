from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from service.manifest import InputSpec
from tests.conftest import DATA
from training import export
from training.architectures import build
from training.architectures.dense import ResidualDenseConfig
from training.architectures.refinement import refine
from training.data import load_test

GREY = InputSpec(height=28, width=28, channels=1)
CONFIG = ResidualDenseConfig(width=12, blocks=1, latent_dim=3, code_activation="tanh", refinement=2)


def test_of_a_linear_decoder_the_codes_become_those_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    basis, images = torch.randn(3, 20, generator=generator), 0.3 * torch.randn(5, 1, 4, 5, generator=generator)
    latents = torch.zeros(5, 3)
    for _ in range(30):
        latents = refine(lambda codes: (codes @ basis).view(-1, 1, 4, 5), images, latents)
    expected = torch.linalg.lstsq(basis.T, images.flatten(1).T).solution.T
    torch.testing.assert_close(latents, expected, rtol=1e-3, atol=1e-4)


def test_codes_stay_in_their_range() -> None:
    def bright(codes: Tensor) -> Tensor:
        return codes.mean(dim=1)[:, None, None, None].expand(-1, 1, 2, 2)

    assert refine(bright, torch.full((3, 1, 2, 2), 9.0), torch.zeros(3, 2)).tolist() == [[1.0, 1.0]] * 3


def test_a_decoder_that_heeds_no_latent_leaves_them() -> None:
    latents = torch.tensor([[0.5, -0.25]])
    assert torch.equal(refine(lambda codes: torch.zeros(len(codes), 1, 2, 2), torch.ones(1, 1, 2, 2), latents), latents)


def test_only_the_trained_encoder_is_refined() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, 28, 28)
    model, plain = (build(CONFIG.model_copy(update={"refinement": steps}), GREY) for steps in (2, 0))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.train().encode(images).mean, plain.train().encode(images).mean)
    model, plain = model.eval(), plain.eval()
    errors = [(each.decode(each.encode(images).mean) - images).square().mean() for each in (model, plain)]
    assert errors[0] < errors[1]


def test_it_is_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(CONFIG, GREY).eval()
    with torch.no_grad():
        for parameter in model.decoder[-1].parameters():
            parameter *= 5  # a trained decoder heeds its latents more
    exported = export.export(model, GREY, load_test("mnist", DATA).images, tmp_path)
    assert exported.parity["latents"] <= 1e-5


@pytest.mark.parametrize("changed", [{"code_activation": "linear"}, {"variational": True}])
def test_it_is_of_bounded_codes_only(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"refinement is of codes in -1\.\.1"):
        ResidualDenseConfig.model_validate(CONFIG.model_dump() | changed)
