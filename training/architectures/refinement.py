"""Codes that fit their images better than the encoder alone can tell.

An encoder is one function for all images, and errs most on those that it was not trained on: the amortisation gap
(Cremer, Li and Duvenaud 2018). Where the code is small, a few steps of Levenberg and Marquardt on the decoder close it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

REACH = 0.1  # of the differences that stand for derivatives, in a code of -1..1
DAMPING = 0.1  # as a share of the curvature, and of a pixel's: steps that the decoder hardly heeds become short


def refine(decode: Callable[[Tensor], Tensor], images: Tensor, latents: Tensor) -> Tensor:
    """Latents (batch, latent_dim) in -1..1, one step nearer to those of which `decode` makes `images`.

    The step is Marquardt's (1963) towards the least squared error, with central differences for the derivatives:
    2 * latent_dim + 1 decodings.
    """
    identity = torch.eye(latents.shape[1], device=latents.device)
    offsets = REACH * identity
    around = torch.cat([torch.zeros_like(offsets[:1]), offsets, -offsets])
    moved = latents + around[:, None]
    decoded = decode(moved.flatten(0, 1)).reshape(*moved.shape[:2], -1)
    ahead, behind = decoded[1:].chunk(2)
    jacobian = ((ahead - behind) / (2 * REACH)).permute(1, 0, 2)  # (batch, latent_dim, pixels)
    residual = (decoded[0] - images.flatten(1)).unsqueeze(2)
    curvature = jacobian @ jacobian.transpose(1, 2)
    damping = DAMPING * (1 + curvature.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None])
    step = _solve(curvature + damping * identity, jacobian @ residual)
    return (latents - step.squeeze(2)).clamp(-1, 1)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Gauss-Jordan elimination of small positive definite systems, for ONNX has no solver."""
    system = torch.cat([matrix, right], dim=2)
    for index in range(matrix.shape[1]):
        row = system[:, index : index + 1] / system[:, index : index + 1, index : index + 1]
        cleared = system - system[:, :, index : index + 1] * row
        system = torch.cat([cleared[:, :index], row, cleared[:, index + 1 :]], dim=1)
    return system[:, :, -1:]
