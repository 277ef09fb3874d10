"""torch-pruning's ways of cutting a network: four importances, each with local and with global ratios.

One step, its defaults otherwise, the classifier's outputs ignored. Taylor's gradients come from the same
training samples that Edgefit's planner looks at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = tuple[Tensor, Tensor]
IMPORTANCES: Final = ("magnitude", "group-norm", "taylor", "bn-scale")
VARIANTS: Final = tuple(f"{name} {scope}" for name in IMPORTANCES for scope in ("local", "global"))


def cut(model: nn.Module, variant: str, ratio: float, batch: Batch, *, inner: bool = False) -> nn.Module:
    """A copy of `model` from which torch-pruning has removed `ratio` of the channels.

    `batch` holds samples with labels for the importances that look at gradients. `inner` cuts nothing but the
    first convolutions of residual blocks: the way around shortcuts that torch-pruning cannot follow. Raises
    whatever torch-pruning raises, and RuntimeError where its network does not run.
    """
    import torch_pruning as tp

    name, scope = variant.split()
    smaller = copy.deepcopy(model).eval()
    make: Mapping[str, Callable[[], tuple[Any, Any]]] = {
        "magnitude": lambda: (tp.pruner.MagnitudePruner, tp.importance.MagnitudeImportance(p=1)),
        "group-norm": lambda: (tp.pruner.GroupNormPruner, tp.importance.GroupMagnitudeImportance(p=2)),
        "taylor": lambda: (tp.pruner.BasePruner, tp.importance.GroupTaylorImportance()),
        "bn-scale": lambda: (tp.pruner.BNScalePruner, tp.importance.BNScaleImportance()),
    }
    pruner, importance = make[name]()
    engine = pruner(
        smaller,
        batch[0][:2],
        importance=importance,
        pruning_ratio=ratio,
        global_pruning=scope == "global",
        ignored_layers=[m for n, m in smaller.named_modules() if _ignored(n, m, inner)],
    )
    if name == "taylor":
        cross_entropy(smaller(batch[0]), batch[1]).backward()
    engine.step()
    smaller.zero_grad(set_to_none=True)
    for parameter in smaller.parameters():
        parameter.requires_grad_(True)
    with torch.no_grad():
        smaller(batch[0][:2])
    return smaller


def _ignored(name: str, module: nn.Module, inner: bool) -> bool:
    if isinstance(module, nn.Linear):
        return True
    return inner and isinstance(module, nn.Conv2d) and not name.endswith(".conv1")
