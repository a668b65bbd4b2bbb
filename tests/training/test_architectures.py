import pytest
import torch

from service.manifest import InputSpec
from training.architectures import ArchitectureConfig, Posterior, build
from training.architectures.base import Clamp
from training.architectures.convolutional import ConvolutionalConfig
from training.architectures.dense import DenseConfig
from training.architectures.variational import VariationalConfig
from training.losses import LossConfig, kl_divergence, training_loss

GREY = InputSpec(height=28, width=28, channels=1)
RGB = InputSpec(height=32, width=24, channels=3)
CONFIGS: dict[str, tuple[ArchitectureConfig, int, str]] = {
    "dense": (DenseConfig(widths=(64, 16)), 16, "fully connected"),
    "convolutional": (ConvolutionalConfig(widths=(4, 8), blocks=1, code_channels=2), -1, "residual convolutional"),
    "variational": (VariationalConfig(widths=(4, 8), latent_dim=5), 5, "variational"),
}


@pytest.mark.parametrize("spec", [GREY, RGB])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_architecture_keeps_its_shapes_and_range(kind: str, spec: InputSpec) -> None:
    config, latent_dim, words = CONFIGS[kind]
    model = build(config, spec).eval()
    images = torch.rand(3, spec.channels, spec.height, spec.width)
    posterior = model.encode(images)
    restored = model.decode(posterior.mean)
    if latent_dim < 0:
        latent_dim = 2 * (spec.height // 4) * (spec.width // 4)
    assert posterior.mean.shape == (3, latent_dim) == (3, model.latent_dim)
    assert (posterior.log_variance is not None) == (kind == "variational")
    assert restored.shape == images.shape
    assert 0 <= restored.min() <= restored.max() <= 1
    assert words in model.describe()


def test_a_dense_network_says_its_widths() -> None:
    assert build(DenseConfig(widths=(256,)), GREY).describe() == "fully connected, 784-256-784"
    assert build(DenseConfig(widths=(64, 8)), GREY).describe() == "fully connected, 784-64-8-64-784"


def test_a_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="28x28 cannot be halved 3 times"):
        build(ConvolutionalConfig(widths=(4, 4, 4), code_channels=1), GREY)


def test_the_clamp_leaks_while_training_only() -> None:
    raw = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    clamp = Clamp(leak=0.1)
    torch.testing.assert_close(clamp.train()(raw), torch.tensor([-0.1, 0.5, 1.1]))
    torch.testing.assert_close(clamp.eval()(raw), torch.tensor([0.0, 0.5, 1.0]))


def test_the_kl_divergence_is_that_of_torchs_distributions() -> None:
    mean, log_variance = torch.randn(2, 4, 3)
    ours = kl_divergence(Posterior(mean, log_variance))
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    reference = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(ours, reference)
    assert kl_divergence(Posterior(mean)).tolist() == [0, 0, 0, 0]


def test_a_posterior_is_sampled_with_its_mean_and_variance() -> None:
    posterior = Posterior(torch.full((20_000, 1), 3.0), torch.full((20_000, 1), 2.0).log())
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(3, abs=0.05)
    assert drawn.var().item() == pytest.approx(2, abs=0.05)
    assert Posterior(posterior.mean).sample(torch.Generator()) is posterior.mean


@pytest.mark.parametrize(("reconstruction", "beta"), [("mse", 1.0), ("bce", 0.0), ("bce", 2.0)])
def test_the_loss_is_reconstruction_plus_weighted_divergence_per_pixel(reconstruction: str, beta: float) -> None:
    model = build(CONFIGS["variational"][0], GREY)
    images = torch.rand(2, 1, 28, 28)
    config = LossConfig.model_validate({"reconstruction": reconstruction, "beta": beta})
    loss = training_loss(model, images, images, config, torch.Generator().manual_seed(1))
    posterior = model.encode(images)
    restored = model.decode(posterior.sample(torch.Generator().manual_seed(1)))
    measure = torch.nn.functional.mse_loss if reconstruction == "mse" else torch.nn.functional.binary_cross_entropy
    expected = measure(restored, images) + beta * kl_divergence(posterior).mean() / 784
    torch.testing.assert_close(loss, expected)
