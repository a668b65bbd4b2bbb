"""Codes that fit their images better than the encoder alone can tell.

An encoder is one function for all images, and errs most on those that it was not trained on. Where the code is small,
a few damped Gauss-Newton steps on the decoder make up for most of that.
"""

from collections.abc import Callable

import torch
from torch import Tensor

REACH = 0.1  # of the differences that stand for derivatives, in a code of -1..1
DAMPING = 0.1  # of the mean curvature, and as much of 1: where the decoder hardly answers, steps stay short


def nearer(decode: Callable[[Tensor], Tensor], images: Tensor, latents: Tensor) -> Tensor:
    """Latents (batch, latent_dim) in -1..1 of which `decode` makes something nearer to `images`, for most images.

    One step of Levenberg's method (1944) towards the least squared error, with a damping of its own for each image and
    central differences for the derivatives: 2 * latent_dim + 1 decodings.
    """
    identity = torch.eye(latents.shape[1], dtype=latents.dtype, device=latents.device)
    offsets = REACH * identity
    around = torch.cat([torch.zeros_like(offsets[:1]), offsets, -offsets])
    moved = latents + around[:, None]
    decoded = decode(moved.flatten(0, 1)).reshape(*moved.shape[:2], -1)
    ahead, behind = decoded[1:].chunk(2)
    jacobian = ((ahead - behind) / (2 * REACH)).permute(1, 0, 2)  # (batch, latent_dim, pixels)
    residual = (decoded[0] - images.flatten(1)).unsqueeze(2)
    curvature = jacobian @ jacobian.transpose(1, 2)
    damping = DAMPING * (1 + curvature.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None])
    step = solve(curvature + damping * identity, jacobian @ residual)
    return (latents - step.squeeze(2)).clamp(-1, 1)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """The x (batch, n, 1) of matrix @ x = right, for small positive definite matrices (batch, n, n).

    By Gauss-Jordan elimination, for ONNX has no solver.
    """
    system = torch.cat([matrix, right], dim=2)
    for index in range(matrix.shape[1]):
        row = system[:, index : index + 1] / system[:, index : index + 1, index : index + 1]
        cleared = system - system[:, :, index : index + 1] * row
        system = torch.cat([cleared[:, :index], row, cleared[:, index + 1 :]], dim=1)
    return system[:, :, -1:]
