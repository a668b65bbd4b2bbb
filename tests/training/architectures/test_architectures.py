import pytest
import torch

from bundle.manifest import InputSpec
from training.architectures import ArchitectureConfig, Classifier, Posterior, build
from training.architectures.base import Clamp, ContinuousBernoulliMean
from training.architectures.convolutional import ConvolutionalConfig
from training.architectures.dense import DenseConfig, ResidualDenseConfig
from training.architectures.pooling import PoolingConfig

GREY = InputSpec(height=28, width=28, channels=1)
RGB = InputSpec(height=32, width=24, channels=3)
CONFIGS: dict[str, tuple[ArchitectureConfig, int, str]] = {
    "dense": (DenseConfig(widths=(64, 16)), 16, "fully connected"),
    "convolutional": (
        ConvolutionalConfig(widths=(4, 8), blocks=1, code_channels=2),
        -1,
        "residual convolutional",
    ),
    "vector": (
        ConvolutionalConfig(widths=(4, 8), blocks=1, latent_dim=6, hidden=(9,)),
        6,
        "residual convolutional",
    ),
    "pooling": (PoolingConfig(widths=(4, 4, 2)), -2, "max-pooling"),
    "residual": (
        ResidualDenseConfig(width=12, blocks=1, latent_dim=7),
        7,
        "fully connected, residual",
    ),
    "refined": (
        ResidualDenseConfig(width=9, latent_dim=3, code_activation="tanh", refinement=1),
        3,
        "refined in 1 steps",
    ),
    "variational": (
        ConvolutionalConfig(widths=(4, 8), latent_dim=5, variational=True, output="sigmoid"),
        5,
        "convolutional variational",
    ),
    "variational dense": (
        DenseConfig(widths=(12, 4), variational=True),
        4,
        "fully connected variational",
    ),
    "variational residual": (
        ResidualDenseConfig(width=9, latent_dim=3, variational=True),
        3,
        "variational, residual",
    ),
}


@pytest.mark.parametrize("spec", [GREY, RGB])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_architecture_keeps_its_shapes_and_range(kind: str, spec: InputSpec) -> None:
    config, latent_dim, words = CONFIGS[kind]
    model = build(config, spec).eval()
    images = torch.rand(3, spec.channels, spec.height, spec.width)
    posterior = model.refine(images, model.encode(images))
    restored = model.decode(posterior.mean)
    if latent_dim == -1:
        latent_dim = 2 * (spec.height // 4) * (spec.width // 4)
    if latent_dim == -2:
        latent_dim = 2 * -(-spec.height // 8) * -(-spec.width // 8)
    assert posterior.mean.shape == (3, latent_dim) == (3, model.latent_dim)
    assert (posterior.log_variance is not None) == ("variational" in kind)
    assert restored.shape == images.shape
    assert 0 <= restored.min() <= restored.max() <= 1
    assert words in model.describe()


def test_a_dense_network_describes_its_widths() -> None:
    assert build(DenseConfig(widths=(256,)), GREY).describe() == "fully connected, 784-256-784"
    assert build(DenseConfig(widths=(64, 8)), GREY).describe() == "fully connected, 784-64-8-64-784"
    variational = build(DenseConfig(widths=(50, 3), variational=True), GREY)
    assert variational.describe() == "fully connected variational, 784-50-3-50-784"


def test_a_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="28x28 cannot be halved 3 times"):
        build(ConvolutionalConfig(widths=(4, 4, 4), code_channels=1), GREY)


def test_the_clamp_leaks_while_training_only() -> None:
    raw = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    clamp = Clamp(leak=0.1)
    torch.testing.assert_close(clamp.train()(raw), torch.tensor([-0.1, 0.5, 1.1]))
    torch.testing.assert_close(clamp.eval()(raw), torch.tensor([0.0, 0.5, 1.0]))


def test_the_mean_of_a_continuous_bernoulli_is_the_one_of_its_density() -> None:
    logits = torch.tensor([-8.0, -1.0, 0.0, 1e-4, 2.0, 8.0], dtype=torch.float64)
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    density = (logits[:, None] * x).exp()  # up to a constant: p(x) is proportional to e^(logit x)
    expected = (density * x).sum(dim=1) / density.sum(dim=1)
    torch.testing.assert_close(ContinuousBernoulliMean()(logits), expected, rtol=1e-4, atol=1e-4)


def test_the_mean_of_a_continuous_bernoulli_loses_no_digits_in_float32() -> None:
    logits = torch.cat([torch.logspace(-2, 2, 2001), torch.tensor([0.999, 1.0, 1.001])])
    logits = torch.cat([logits, -logits])
    exact = logits.double()
    expected = 1 / (1 - (-exact).exp()) - 1 / exact
    torch.testing.assert_close(
        ContinuousBernoulliMean()(logits).double(), expected, rtol=0, atol=2e-7
    )


def test_a_head_gives_probabilities() -> None:
    classifier = Classifier(build(DenseConfig(widths=(8,)), GREY), classes=3)
    probabilities = classifier.classify(torch.randn(5, 8))
    assert probabilities.shape == (5, 3)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))


def test_a_posterior_is_sampled_with_its_mean_and_variance() -> None:
    posterior = Posterior(torch.full((2, 1), 3.0), torch.full((2, 1), 4.0).log())
    assert posterior.sample(torch.tensor([[-1.0], [0.5]])).tolist() == [[1.0], [4.0]]
    assert Posterior(posterior.mean).sample(torch.ones(2, 1)) is posterior.mean
