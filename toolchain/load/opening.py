"""`load`: the one way from a model file to a Program."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from toolchain.errors import InputError
from toolchain.load.archive import load_archive
from toolchain.load.pickles import load_pickle
from toolchain.load.recognise import recognise
from toolchain.load.script import converted, load_script
from toolchain.program.capture import capture, from_exported
from toolchain.values import Program

_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net", "weights")
_SHAPE_HINT: Final = "for example --input-shape 1,3,224,224; several inputs: repeat the flag"


def load(
    path: Path,
    *,
    input_shape: tuple[tuple[int, ...], ...] | None = None,
    arch: str | None = None,
    trust_pickle: bool = False,
) -> Program:
    """The network in `path`, captured.

    `input_shape` gives one shape [batch, ...] per input where the file has none. `arch` names the factory
    `package.module:factory` that a state dict belongs to. `trust_pickle` runs whatever a pickle contains.

    Raises:
        InputError: not a readable model, unsafe, weights that do not fit or are not finite, wrong shape.
        UnsupportedError: sound, but not traceable.
    """
    kind = recognise(path)
    name = path.stem
    if kind == "exported":
        program = from_exported(load_archive(path, trust=trust_pickle), name=name)
        if input_shape is not None:
            _agree(path, program, input_shape)
    else:
        program = _captured(path, kind, name, input_shape, arch, trust_pickle)
    _check_weights(path, program)
    return replace(program, name=name)


def _captured(
    path: Path,
    kind: str,
    name: str,
    input_shape: tuple[tuple[int, ...], ...] | None,
    arch: str | None,
    trust: bool,
) -> Program:
    module: Any = (
        load_script(path) if kind == "torchscript" else _module(path, load_pickle(path, trust=trust), arch)
    )
    if input_shape is None:
        raise InputError(
            f"{path} does not say what its inputs look like", hint=f"give --input-shape, {_SHAPE_HINT}"
        )
    example = _example(input_shape)
    module.eval()
    try:
        with torch.no_grad():
            module(*example)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
        shapes = ", ".join(str(list(shape)) for shape in input_shape)
        raise InputError(
            f"{path}: the network fails on an input of shape {shapes}: {reason}",
            hint=f"check --input-shape, {_SHAPE_HINT}",
        ) from error
    if kind == "torchscript":
        module = converted(module, example, path)
    return capture(module, example, name=name)


def _module(path: Path, found: Any, arch: str | None) -> nn.Module:
    """The pickled network itself, or the architecture filled with the pickled weights."""
    if isinstance(found, nn.Module):
        return found
    state = _state_dict(found)
    if state is None:
        raise InputError(
            f"{path} holds a {type(found).__name__}, neither a network nor a state dict",
            hint="save the nn.Module or its state_dict()",
        )
    if arch is None:
        first = ", ".join(list(state)[:3])
        raise InputError(
            f"{path} is a state dict ({len(state)} tensors: {first}, ...): the architecture is not in it",
            hint="give --arch package.module:factory, the function that builds the network",
        )
    module = _built(arch)
    _fill(path, module, state, arch)
    return module


def _state_dict(found: Any) -> Mapping[str, Tensor] | None:
    """The mapping of tensors in `found`, also below one of the usual keys of checkpoints."""
    if not isinstance(found, Mapping):
        return None
    if found and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()):
        return dict(found)
    for key in _WRAPPERS:
        inner = _state_dict(found.get(key))
        if inner is not None:
            return inner
    return None


def _built(arch: str) -> nn.Module:
    module_name, colon, attribute = arch.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(
            f"--arch '{arch}' is not package.module:factory", hint="for example my_models:resnet20"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        factory = getattr(importlib.import_module(module_name), attribute, None)
    except (ImportError, SyntaxError, ValueError) as error:
        raise InputError(
            f"--arch '{arch}': cannot import '{module_name}' ({error})",
            hint="it must be importable from the working directory or installed",
        ) from error
    if not callable(factory):
        state = "has no" if factory is None else "has a non-callable"
        raise InputError(
            f"--arch '{arch}': module '{module_name}' {state} '{attribute}'", hint="name a function"
        )
    try:
        module = factory()
    except Exception as error:
        raise InputError(
            f"--arch '{arch}' failed: {error}", hint="the factory is called without arguments"
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"--arch '{arch}' returned {type(module).__name__}, no nn.Module", hint="return the network"
        )
    return module


def _fill(path: Path, module: nn.Module, state: Mapping[str, Tensor], arch: str) -> None:
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    wanted = module.state_dict()
    shapes = [
        f"{key} is {list(state[key].shape)}, not {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    problems = {
        "missing": [key for key in wanted if key not in state and key not in counters],
        "unexpected": [key for key in state if key not in wanted],
        "wrong shape": shapes,
    }
    found = [f"{what}: {', '.join(keys[:3])}{_more(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise InputError(
            f"{path} does not fit --arch {arch}: {'; '.join(found)}", hint="check the factory's settings"
        )
    module.load_state_dict(dict(state), strict=False)


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - 3} more" if len(keys) > 3 else ""


def _example(shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...]:
    """Seeded float inputs; the batch is at least 2, because torch.export specialises on 1."""
    random = torch.Generator().manual_seed(0)
    for shape in shapes:
        if not shape or any(size < 1 for size in shape):
            raise InputError(f"--input-shape {list(shape)}: sizes are positive", hint=_SHAPE_HINT)
    return tuple(torch.randn(max(2, shape[0]), *shape[1:], generator=random) for shape in shapes)


def _agree(path: Path, program: Program, shapes: tuple[tuple[int, ...], ...]) -> None:
    stated = [spec.shape for spec in program.inputs]
    fits = len(stated) == len(shapes) and all(
        len(a) == len(b) and all(x is None or x == y for x, y in zip(a, b, strict=True))
        for a, b in zip(stated, shapes, strict=True)
    )
    if not fits:
        own = ", ".join(str(["batch" if d is None else d for d in shape]) for shape in stated)
        asked = ", ".join(str(list(shape)) for shape in shapes)
        raise InputError(f"{path} takes {own}, --input-shape says {asked}", hint="leave --input-shape out")


def _check_weights(path: Path, program: Program) -> None:
    floats = 0
    for name, value in program.module.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point():
            floats += 1
            if not bool(torch.isfinite(value).all()):
                bad = "NaN" if bool(torch.isnan(value).any()) else "infinity"
                raise InputError(f"{path}: weights hold {bad} (in '{name}')", hint="train or save it again")
    if floats == 0 or not any(p.is_floating_point() for p in program.module.parameters()):
        raise InputError(f"{path} has no floating-point parameter", hint="there is nothing to compress in it")
