"""The prior of latents: a mixture of Gaussians fitted to them."""

import numpy as np
import numpy.typing as npt
from sklearn.mixture import GaussianMixture as MixtureFit

from bundle.latents import GaussianMixture
from bundle.tensors import Images
from training.errors import RecipeError
from training.export.graph_runner import Graphs

MAX_MIXTURE_IMAGES = 20_000  # more take minutes, without a visible difference


def encode_for_mixture(graphs: Graphs, training: Images) -> npt.NDArray[np.float32]:
    """Latents (n, latent_dim) of up to `MAX_MIXTURE_IMAGES` training images."""
    images = training[:MAX_MIXTURE_IMAGES]
    latents = graphs.chain_in_batches(["encoder"], ["latents"], images=images)["latents"]
    return latents.astype(np.float32, copy=False)


def fit_mixture(latents: npt.NDArray[np.float32], components: int, seed: int) -> GaussianMixture:
    """Fit a mixture of full-covariance Gaussians to latents (n, latent_dim).

    Ex-post density estimation, Ghosh et al. 2020, "From Variational to Deterministic Autoencoders",
    section 4. Raises RecipeError if there are too many components for the latents.
    """
    try:
        fit = MixtureFit(components, random_state=seed, reg_covar=1e-5, tol=1e-2).fit(
            latents.astype(np.float64)
        )
    except ValueError as error:
        raise RecipeError(
            f"no mixture of {components} components fits the latents: {error};"
            " lower mixture_components"
        ) from error
    return GaussianMixture(
        weights=fit.weights_,
        means=fit.means_.astype(np.float32),
        cholesky=np.linalg.cholesky(fit.covariances_).astype(np.float32),
    )
