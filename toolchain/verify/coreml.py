"""A Core ML package checked: names and shapes fit, its weights are ours, it computes what the program does.

Where Core ML does not run, the package is interpreted (`mil`): that verifies the conversion, never a device.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.fx import Node

from toolchain.foreign import require
from toolchain.values import Artifact, Check, Program
from toolchain.verify.mil.execution import Interpreter, interpreter
from toolchain.verify.mil.refusal import Refused
from toolchain.verify.parity import check_float, reference, snr_db
from toolchain.verify.tolerance import (
    FP16_FLOOR,
    FP16_ROUNDING,
    FP16_SNR_DB,
    INT8_FLOOR,
    INT8_ROUNDING,
    INT8_SNR_DB,
)

if TYPE_CHECKING:
    from toolchain.contracts import Arrays, Session

_CONVOLUTIONS: Final = {"conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d"}
COMPARED: Final = 8
"""Inputs on which a package is interpreted: one by one, the speed of torch in float32."""
INTERPRETED: Final = "interpreted; not run on Apple hardware"
NOT_INTERPRETED: Final = "structure and weights only; not run on Apple hardware"


def check_coreml(
    artifact: Artifact,
    program: Program,
    inputs: Arrays | None = None,
    *,
    subject: str,
    session: Session | None = None,
) -> tuple[Check, ...]:
    """Structure and weights of a package and, on `inputs` [n, ...], what it computes.

    On macOS `session` runs it; elsewhere it is interpreted, and "Core ML execution" is "not run". What the
    interpreter refuses is said by name and is not a failure.

    Raises:
        InputError: coremltools is missing.
        ConversionError: the package cannot be read.
    """
    require(("coremltools",), extra="coreml", purpose="reading Core ML")
    checks: list[Check] = []
    how = NOT_INTERPRETED
    try:
        opened = interpreter(artifact.path)
        checks += [_names(opened, program, subject), _weights(opened, artifact, program, subject)]
        if inputs is not None and checks[0].status == "pass":  # else there is nothing to pair
            some = tuple(array[:COMPARED] for array in inputs)
            checks.append(_computes(artifact, program, session or opened, some, subject))
            how = INTERPRETED
    except Refused as error:
        how = f"not interpreted ({error}); not run on Apple hardware"
    if session is None or not checks:
        checks.append(Check(name="Core ML execution", subject=subject, status="not run", detail=how))
    return tuple(checks)


def _names(opened: Interpreter, program: Program, subject: str) -> Check:
    wanted = [(s.name, tuple(1 if size is None else size for size in s.shape)) for s in program.inputs]
    outputs = [s.name for s in program.outputs]
    declared = [(name, entry.shape) for name, entry in opened.program.inputs]
    fits = declared == wanted and list(opened.outputs) == outputs
    found = f"inputs {dict(declared)}, outputs {list(opened.outputs)}"
    return Check(
        name="Core ML structure",
        subject=subject,
        status="pass" if fits else "fail",
        detail=found if fits else f"{found}; the program has {dict(wanted)} and {outputs}",
    )


def _computes(artifact: Artifact, program: Program, session: Session, inputs: Arrays, subject: str) -> Check:
    """Signal to noise of the worst output; of float32 equality, since only fp16 rounds every activation."""
    how = INTERPRETED if isinstance(session, Interpreter) else "run in Core ML on this machine"
    if artifact.precision == "fp32":
        check = check_float(program, session, inputs, subject=subject)
        return replace(check, detail=f"{check.detail}; {how}")
    pairs = zip(session.run(inputs), reference(program, inputs), strict=True)
    ratios = [snr_db(found, wanted) for found, wanted in pairs if wanted.dtype.kind == "f"]
    kind, limit = ("fp16", FP16_SNR_DB) if artifact.precision == "fp16" else ("int8 weights", INT8_SNR_DB)
    name = f"{kind} signal to noise"
    if not ratios:  # one class instead of another is no small difference
        return Check(name=name, subject=subject, status="not run", detail=f"no output of floats; {how}")
    ratio = min(ratios)
    return Check(
        name=name,
        subject=subject,
        status="pass" if ratio >= limit else "fail",
        value=ratio,
        limit=limit,
        unit="dB",
        detail=f"{len(inputs[0])} samples, worst output; {how}",
    )


def _weights(opened: Interpreter, artifact: Artifact, program: Program, subject: str) -> Check:
    """Every weight of the program, batch norm folded in, found in the package within its rounding."""
    limit, floor = (FP16_ROUNDING, FP16_FLOOR)
    if artifact.precision not in ("fp16", "fp32"):
        limit, floor = INT8_ROUNDING, INT8_FLOOR
    left = list(opened.weights())
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


def _distance(found: Tensor, wanted: Tensor, floor: float) -> float:
    """Largest difference over the largest value of the same output channel; infinite for unlike shapes.

    Channels whose largest value is under `floor` count as if it were `floor`.
    """
    if found.numel() != wanted.numel() or [s for s in found.shape if s != 1] != [
        s for s in wanted.shape if s != 1
    ]:
        return float("inf")
    ours, theirs = wanted.double().flatten(1), found.double().reshape(wanted.shape).flatten(1)
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
