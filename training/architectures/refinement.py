"""Refinement of codes: damped Gauss-Newton steps on the decoder reduce the encoder's error.

An encoder is one function for all images, and errs most on images outside its training data. If the
code is small, a few steps remove most of that error.
"""

from collections.abc import Callable

import torch
from torch import Tensor

DIFFERENCE_STEP = 0.1  # of central differences, in codes of -1..1
# Relative to 1 + the mean curvature. So steps stay short if the decoder hardly depends on the code.
DAMPING = 0.1


def step_towards(decode: Callable[[Tensor], Tensor], images: Tensor, latents: Tensor) -> Tensor:
    """Latents (batch, latent_dim) in -1..1 that `decode` maps nearer to most of the images.

    One step of Levenberg's method (1944) towards the least squared error, with a separate damping
    for each image. Derivatives are central differences: 2 * latent_dim + 1 decodings.
    """
    identity = torch.eye(latents.shape[1], dtype=latents.dtype, device=latents.device)
    offsets = DIFFERENCE_STEP * identity
    around = torch.cat([torch.zeros_like(offsets[:1]), offsets, -offsets])
    moved = latents + around[:, None]
    decoded = decode(moved.flatten(0, 1)).reshape(*moved.shape[:2], -1)
    ahead, behind = decoded[1:].chunk(2)
    # (batch, latent_dim, pixels)
    jacobian = ((ahead - behind) / (2 * DIFFERENCE_STEP)).permute(1, 0, 2)
    residual = (decoded[0] - images.flatten(1)).unsqueeze(2)
    curvature = jacobian @ jacobian.transpose(1, 2)
    # Not `diagonal`, whose export makes a matrix of every shape anew.
    trace = (curvature * identity).sum(dim=(1, 2), keepdim=True)
    damping = DAMPING * (1 + trace / len(identity))
    step = solve(curvature + damping * identity, jacobian @ residual)
    return (latents - step.squeeze(2)).clamp(-1, 1)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve matrix @ x = right for x (batch, n, 1), with positive definite matrices (batch, n, n).

    By Gauss-Jordan elimination, because ONNX has no solver; matrices should be small.
    """
    system = torch.cat([matrix, right], dim=2)
    for index in range(matrix.shape[1]):
        row = system[:, index : index + 1] / system[:, index : index + 1, index : index + 1]
        cleared = system - system[:, :, index : index + 1] * row
        system = torch.cat([cleared[:, :index], row, cleared[:, index + 1 :]], dim=1)
    return system[:, :, -1:]
