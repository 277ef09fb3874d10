"""Kernel sparsity by the l1/l2 pseudo-norm: small where few kernels carry all the weight.

    n_k = mean |W_k| of kernel k;  penalty |n|_1 / |n|_2, between 1 (one kernel) and sqrt(kernels) (all alike)

It does not change when all weights are scaled, so that it cannot be made small by small weights alone.
Source: Hoyer, "Non-negative Matrix Factorization with
Sparseness Constraints", JMLR 2004.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_norms(weight: Tensor) -> Tensor:
    """The mean absolute weight of every kernel of a weight [out, ...]: [out]."""
    return weight.abs().flatten(1).mean(1)


def pseudo_norm(norms: Tensor) -> Tensor:
    """|n|_1 / |n|_2 of norms [kernels] (0-d); 0 where all are 0."""
    length = norms.square().sum()
    # The root has no slope at 0, where nothing is left to press.
    return norms.sum() / length.sqrt() if float(length.detach()) > 0 else norms.sum()


def negligible(norms: Tensor, share: float) -> Tensor:
    """The smallest kernels that together hold no more than `share` of the sum of norms: bool [kernels]."""
    order = norms.argsort(stable=True)
    total = norms.sum()
    held = norms[order].cumsum(0) <= share * total
    found = torch.zeros_like(norms, dtype=torch.bool)
    found[order[held]] = True
    return found
