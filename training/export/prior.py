"""A mixture of Gaussians fitted to latents."""

import numpy as np
import numpy.typing as npt
from sklearn.mixture import GaussianMixture as MixtureFit

from bundle.latents import GaussianMixture
from bundle.tensors import Images
from training.errors import RecipeError
from training.export.graph_runner import Graphs

MIXTURE_IMAGES = 20_000  # more take minutes and change nothing that can be seen


def mixture_latents(graphs: Graphs, training: Images) -> npt.NDArray[np.float32]:
    """The latents (n, latent_dim) of as many training images as a mixture is fitted to."""
    found = graphs.chain_in_batches(["encoder"], ["latents"], images=training[:MIXTURE_IMAGES])[
        "latents"
    ]
    return found.astype(np.float32, copy=False)


def fit_mixture(latents: npt.NDArray[np.float32], components: int, seed: int) -> GaussianMixture:
    """Fit a mixture of full-covariance Gaussians to latents (n, latent_dim).

    Ex-post density estimation, Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 4.
    """
    try:
        fit = MixtureFit(components, random_state=seed, reg_covar=1e-5, tol=1e-2).fit(
            latents.astype(np.float64)
        )
    except ValueError as error:
        raise RecipeError(
            f"no mixture fits the latents: {error}; lower mixture_components"
        ) from error
    return GaussianMixture(
        weights=fit.weights_,
        means=fit.means_.astype(np.float32),
        cholesky=np.linalg.cholesky(fit.covariances_).astype(np.float32),
    )
