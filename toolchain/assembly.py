"""From a program to its files: exported, quantized, reopened and compared; each file is a finished stage."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolchain import __version__, registry
from toolchain.contracts import Data, Format, Quantizer, Session
from toolchain.errors import InputError
from toolchain.plain import from_plain, to_plain
from toolchain.program.capture import fingerprint
from toolchain.program.cost import layers
from toolchain.program.lower import lower
from toolchain.stages import Stages
from toolchain.values import Artifact, Precision, Preprocessing, Program

if TYPE_CHECKING:
    from torch import Tensor

    from toolchain.contracts import Arrays, Weights

Kind = tuple[str, Precision]
FLOAT_OF: Mapping[str, Precision] = {"onnx": "fp32", "tflite": "fp32", "coreml": "fp16"}
CALIBRATION: Final = 128
"""Training samples for int8 calibration; four times as many changed top-1 by under 0.1 points."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the files are made with besides the program: calibration samples [n, ...] and metadata."""

    samples: Sequence[Arrays] | None
    metadata: Mapping[str, str]
    key: str


def format_named(name: str) -> Format:
    """The format plug-in called `name`."""
    found: Format = registry.find("toolchain.export", "FORMAT", name, kind="format")
    return found


def quantizers(format_name: str) -> dict[Precision, Quantizer]:
    """The quantizers that apply to files of a format, by the precision they give."""
    known: dict[Precision, Quantizer] = {}
    for name in registry.names("toolchain.quantize"):
        quantizer: Quantizer = registry.find("toolchain.quantize", "QUANTIZER", name, kind="quantizer")
        if quantizer.format == format_name:
            known[quantizer.precision] = quantizer
    return known


def metadata(program: Program, preprocessing: Preprocessing | None, source: str) -> dict[str, str]:
    """What travels inside every file: names, classes, preprocessing and where it came from."""
    entries = {
        "edgefit.version": __version__,
        "edgefit.source": source,
        "edgefit.program": fingerprint(program),
        "edgefit.inputs": json.dumps(to_plain(program.inputs)),
        "edgefit.outputs": json.dumps(to_plain(program.outputs)),
    }
    if program.classes:
        entries["edgefit.classes"] = json.dumps(list(program.classes))
    if preprocessing is not None:
        entries["edgefit.preprocessing"] = json.dumps(to_plain(preprocessing))
    return entries


def material_of(program: Program, data: Data | None, source: str) -> Material:
    """Calibration samples from `data` and the metadata of every file; `source` says what the network was."""
    if data is None:
        return Material(samples=None, metadata=metadata(program, None, source), key="")
    inputs, _ = data.calibration(CALIBRATION)
    arrays = tuple(x.numpy() for x in inputs)
    entries = metadata(program, data.preprocessing, source)
    return Material(samples=[arrays], metadata=entries, key=data.fingerprint())


def build(
    program: Program,
    kinds: Sequence[Kind],
    stages: Stages,
    material: Material,
    in_float: Sequence[str] = (),
) -> dict[Kind, Artifact]:
    """The program's files of all `kinds` (format, precision), each made once.

    A quantized file is made from the float file of its format; the layers named `in_float` (by their
    weights; those that the program has no more are passed over) keep that one's precision. Errors of a
    converter propagate.
    """
    made: dict[Kind, Artifact] = {}
    identity = fingerprint(program)
    for format_name, precision in kinds:
        base: Precision = FLOAT_OF[format_name]
        for step in dict.fromkeys((base, precision)):
            kind = (format_name, step)
            if kind not in made:
                source = None if step == base else made[(format_name, base)]
                made[kind] = _stage(program, identity, kind, source, stages, material, in_float)
    return {kind: made[kind] for kind in kinds}


def _stage(
    program: Program,
    identity: str,
    kind: Kind,
    source: Artifact | None,
    stages: Stages,
    material: Material,
    in_float: Sequence[str],
) -> Artifact:
    format_name, precision = kind
    form = format_named(format_name)
    suffix = form.suffix if source is None else f".{precision}{form.suffix}"

    def make(folder: Path) -> None:
        path = folder / f"{program.name}{suffix}"
        if source is None:
            artifact = form.write(lower(program), path, material.metadata)
        else:
            quantizer = quantizers(format_name)["int8" if precision == "mixed" else precision]
            samples = material.samples if quantizer.needs_data else None
            artifact = quantizer.quantize(source, path, samples, weights_of(program, in_float))
        record = to_plain(replace(artifact, path=Path(path.name), precision=precision))
        (folder / "artifact.json").write_text(json.dumps(record), encoding="utf-8")

    inputs = {
        "program": identity,
        "format": format_name,
        "precision": precision,
        "metadata": dict(material.metadata),
        "samples": material.key if source is not None else "",
        "in_float": list(in_float) if source is not None else [],
    }
    folder, _ = stages.once(f"{format_name}-{precision}", inputs, make)
    artifact = from_plain(Artifact, json.loads((folder / "artifact.json").read_text(encoding="utf-8")))
    return replace(artifact, path=folder / artifact.path)


def weights_of(program: Program, names: Sequence[str]) -> Weights:
    """Weights of the layers whose weights are called so, as they are exported (batch norms merged)."""
    if not names:
        return {}
    lowered = lower(program)
    tensors = {**dict(lowered.module.named_parameters()), **dict(lowered.module.named_buffers())}
    exported = {layer.node: tensors[layer.weight].detach().numpy() for layer in layers(lowered)}
    return {
        layer.weight: exported[layer.node]
        for layer in layers(program)
        if layer.weight in names and layer.node in exported
    }


def copy_file(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact, copied into `folder`."""
    target = folder / artifact.path.name
    if artifact.path.is_dir():
        shutil.copytree(artifact.path, target)
    else:
        shutil.copy2(artifact.path, target)
    return replace(artifact, path=target)


def open_session(artifact: Artifact) -> Session | None:
    """The file opened for running here, or None where no engine for its format exists on this platform."""
    form = format_named(artifact.format)
    return None if form.open is None else form.open(artifact.path)


def runner(session: Session) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """The session as a function on torch tensors, as `evaluate` wants it."""
    import torch

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: tuple[Any, ...] = session.run(tuple(x.numpy() for x in inputs))
        return tuple(torch.from_numpy(y) for y in outputs)

    return run


def missing_packages(format_name: str) -> list[str]:
    """What writing and running a format needs and is not installed here; loads nothing."""
    return [p for p in format_named(format_name).packages if importlib.util.find_spec(p) is None]


def require_formats(formats: Sequence[str]) -> None:
    """Fail early, before minutes of work, when a format is unknown or its packages are missing.

    Raises:
        InputError: with the install command.
    """
    for name in formats:
        form, missing = format_named(name), missing_packages(name)
        if missing:
            raise InputError(
                f"format '{name}' needs {', '.join(missing)}, which is not installed",
                hint=f"pip install 'edgefit[{form.extra}]', or leave the format out with --formats",
            )
