"""TorchScript archives become modules that torch.export can trace.

Given:  a ScriptModule (scripted or traced)
Result: an fx GraphModule with the same operators; parameters are Parameters again, names unchanged
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from toolchain.errors import InputError, UnsupportedError


def load_script(path: Path) -> torch.jit.ScriptModule:
    """The TorchScript archive; its own restricted unpickler knows tensors and TorchScript classes only.

    Raises:
        InputError: damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            script: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            script.eval()
            return script
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(f"{path} cannot be read as TorchScript: {reason}", hint="save it again") from error


def converted(script: torch.jit.ScriptModule, example: tuple[Tensor, ...], path: Path) -> nn.Module:
    """The script as a traceable module, checked on `example`.

    Raises:
        UnsupportedError: an operator or control flow without counterpart in torch.export.
    """
    from torch._export.converter import TS2EPConverter

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            module = TS2EPConverter(script, example).convert().module(check_guards=False)
            expected, found = script(*example), module(*example)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UnsupportedError(
            f"{path}: this TorchScript cannot be converted ({reason})",
            hint="export the original network with torch.export.save",
        ) from error
    if not _equal(expected, found):
        raise UnsupportedError(
            f"{path}: the converted TorchScript computes something else",
            hint="export the original network with torch.export.save",
        )
    for switch in ("train", "eval"):
        # torch.export forbids both on its modules; this one has its mode written into the graph anyway.
        module.__dict__.pop(switch, None)
    trained = {name for name, _ in script.named_parameters()}
    for name in trained:
        owner, _, leaf = name.rpartition(".")
        holder = module.get_submodule(owner)
        value = holder._buffers.pop(leaf, None)
        if isinstance(value, Tensor):
            holder.register_parameter(
                leaf, nn.Parameter(value.detach(), requires_grad=value.is_floating_point())
            )
    return module


def _equal(expected: object, found: object) -> bool:
    if isinstance(expected, Tensor) and isinstance(found, Tensor):
        return torch.allclose(expected, found, rtol=1e-5, atol=1e-6, equal_nan=True)
    if isinstance(expected, (tuple, list)) and isinstance(found, (tuple, list)):
        return len(expected) == len(found) and all(map(_equal, expected, found))
    return type(expected) is type(found)
