"""A Core ML package checked where it cannot run: it opens, its names and shapes fit, its weights are ours."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.fx import Node

from toolchain.coreml_package import Contents, read
from toolchain.foreign import require
from toolchain.values import Artifact, Check, Program
from toolchain.verify.tolerance import FP16_FLOOR, FP16_ROUNDING, INT8_FLOOR, INT8_ROUNDING

if TYPE_CHECKING:
    import numpy as np

_CONVOLUTIONS: Final = {"conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d"}
NOT_EXECUTED: Final = "not executed on this machine: Core ML runs on macOS and iOS only"


def check_coreml(artifact: Artifact, program: Program, *, subject: str) -> tuple[Check, ...]:
    """Structure and weights of a package; that it was not executed is a check of its own, "not run".

    Raises:
        InputError: coremltools is missing.
        ConversionError: the package cannot be read.
    """
    require(("coremltools",), extra="coreml", purpose="reading Core ML")
    contents = read(artifact.path)
    return (
        _names(contents, program, subject),
        _weights(contents, artifact, program, subject),
        Check(name="Core ML execution", subject=subject, status="not run", detail=NOT_EXECUTED),
    )


def _names(contents: Contents, program: Program, subject: str) -> Check:
    wanted = [(s.name, tuple(1 if size is None else size for size in s.shape)) for s in program.inputs]
    outputs = [s.name for s in program.outputs]
    fits = list(contents.inputs) == wanted and list(contents.outputs) == outputs
    found = f"inputs {dict(contents.inputs)}, outputs {list(contents.outputs)}"
    return Check(
        name="Core ML structure",
        subject=subject,
        status="pass" if fits else "fail",
        detail=found if fits else f"{found}; the program has {dict(wanted)} and {outputs}",
    )


def _weights(contents: Contents, artifact: Artifact, program: Program, subject: str) -> Check:
    """Every weight of the program, batch norm folded in, found in the package within its rounding."""
    limit, floor = (FP16_ROUNDING, FP16_FLOOR)
    if artifact.precision != "fp16":
        limit, floor = INT8_ROUNDING, INT8_FLOOR
    left = list(contents.weights)
    worst, where = 0.0, ""
    layers = _folded(program)
    for name, candidates in layers:
        errors = [min(_distance(array, c, floor) for c in candidates) for array in left]
        best = min(range(len(errors)), key=errors.__getitem__, default=None)
        error = float("inf") if best is None else errors[best]
        if best is not None and error <= limit:
            left.pop(best)
        if error >= worst:
            worst, where = error, name
    status: Any = "pass" if worst <= limit else "fail"
    missing = worst == float("inf")
    return Check(
        name="Core ML weights",
        subject=subject,
        status=status if layers else "not run",
        value=None if missing or not layers else worst,
        limit=limit,
        unit="relative error",
        detail=f"no weight of the shape of '{where}'"
        if missing
        else f"{len(layers)} layers, worst '{where}'",
    )


def _distance(found: np.ndarray[Any, Any], wanted: Tensor, floor: float) -> float:
    """Largest difference over the largest value of the same output channel; infinite for unlike shapes.

    Channels whose largest value is under `floor` count as if it were `floor`.
    """
    if found.size != wanted.numel() or [s for s in found.shape if s != 1] != [
        s for s in wanted.shape if s != 1
    ]:
        return float("inf")
    ours, theirs = wanted.double().flatten(1), torch.from_numpy(found.copy()).reshape(wanted.shape).flatten(1)
    scale = ours.abs().amax(dim=1, keepdim=True).clamp_min(floor)
    return float(((ours - theirs).abs() / scale).max())


def _folded(program: Program) -> list[tuple[str, tuple[Tensor, ...]]]:
    """Name and possible forms of every constant weight: as it is, and with its batch norm folded in."""
    module = program.module
    state: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    found = []
    running: set[Node] = set()  # what depends on an input: layers of constants are computed before exporting
    for node in module.graph.nodes:
        if node.op == "placeholder" or not running.isdisjoint(node.all_input_nodes):
            running.add(node)
        else:
            continue
        name = getattr(getattr(node.target, "_schema", None), "name", "").removeprefix("aten::")
        if name not in _CONVOLUTIONS and name != "linear":
            continue
        weight = node.args[1]
        if isinstance(weight, Node) and weight.op == "get_attr" and str(weight.target) in state:
            plain = state[str(weight.target)].detach()
            transposed = "transpose" in name
            found.append((str(weight.target), (plain, *_with_norm(node, plain, state, transposed))))
    return found


def _with_norm(node: Node, weight: Tensor, state: dict[str, Tensor], transposed: bool) -> tuple[Tensor, ...]:
    """The weight times gamma / sqrt(var + eps) of the batch norm that alone reads the layer, if one does."""
    users = [user for user in node.users if user.target is not operator.getitem]
    schema = getattr(getattr(users[0].target, "_schema", None), "name", "") if len(users) == 1 else ""
    if schema != "aten::batch_norm":
        return ()
    _, gamma, _, _, variance, _, _, eps, *_ = users[0].args
    tensors = [state.get(str(n.target)) if isinstance(n, Node) else None for n in (gamma, variance)]
    if tensors[1] is None:
        return ()
    factor = torch.rsqrt(tensors[1].detach().double() + float(eps))  # type: ignore[arg-type]
    if tensors[0] is not None:
        factor = factor * tensors[0].detach().double()
    dim = 1 if transposed else 0
    if weight.shape[dim] != factor.numel():
        return ()
    shape = [1] * weight.dim()
    shape[dim] = -1
    return (weight.double() * factor.reshape(shape),)
