import numpy as np
import pytest

from tests.conftest import DATA
from training.data.mnist import load_training
from training.evaluation import baselines


def test_pca_error_is_that_of_the_best_linear_code() -> None:
    images = load_training("mnist", DATA).images
    flat = images.reshape(len(images), -1) / 255.0
    centred = flat - flat.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    expected = np.square(singular[16:]).sum() / centred.size
    pca = baselines.PrincipalComponents(images, 16, seed=0)
    assert pca.measure_error(images) == pytest.approx(expected, rel=0.01)
