"""Core ML: an ML Program in an `.mlpackage`, fp16 weights and activations, batch 1."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolchain import __version__
from toolchain.artifacts import deliver
from toolchain.contracts import Format
from toolchain.coreml_package import save
from toolchain.errors import ConversionError
from toolchain.export._graph import exported
from toolchain.foreign import require, translated
from toolchain.settings import STORED
from toolchain.values import Artifact, Precision, Program, TensorSpec

if TYPE_CHECKING:
    from toolchain.contracts import Arrays

_PACKAGES: Final = ("coremltools",)
_DATED: Final = "com.github.apple.coremltools.conversion_date"
SMALLEST: Final = 512
"""Weights with fewer elements keep no table: it would cost what it saves."""
TABLES: Final = (2, 4, 16, 64, 256)
"""Entries that a table may have on iOS 17."""
_MACOS: Final = sys.platform == "darwin"


def write(
    program: Program, path: Path, metadata: Mapping[str, str], *, precision: Precision = "fp16"
) -> Artifact:
    """Write `program` at batch 1 for iOS 17 / macOS 14 and newer, in fp16 or, to compare with it, in fp32.

    Raises:
        InputError: coremltools is missing, or the disk refuses.
        ConversionError: an operator cannot be translated.
    """
    require(_PACKAGES, extra="coreml", purpose="writing Core ML")
    with translated(f"conversion of '{program.name}' to Core ML"):
        model = _converted(program, metadata, precision)
    return deliver(
        path,
        lambda partial: save(model, partial),
        format_name="coreml",
        runtime="coreml",
        precision=precision,
    )


def _converted(program: Program, metadata: Mapping[str, str], precision: Precision) -> Any:
    """The converted MLModel with the program's names and the metadata; it is not compiled or loaded."""
    import coremltools as ct

    graph = exported(program, 1, dynamic=False).run_decompositions(_step_by_step())
    model = ct.convert(
        graph,
        outputs=[ct.TensorType(name=spec.name) for spec in program.outputs],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16,
        skip_model_load=True,
    )
    spec = model.get_spec()
    for entry, wanted in zip(list(spec.description.input), program.inputs, strict=True):
        if entry.name != wanted.name:
            ct.utils.rename_feature(spec, entry.name, wanted.name, rename_outputs=False)
    model = ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
    if STORED in metadata:
        model = _with_palettes(model)
    model.author, model.version = "edgefit", __version__
    model.short_description = program.name
    model.user_defined_metadata.pop(_DATED, None)
    model.user_defined_metadata.update(sorted(metadata.items()))
    return model


def _with_palettes(model: Any) -> Any:
    """Weights of at most 256 values as a table and indices of 1 to 8 bits; the same numbers."""
    from coremltools.optimize import coreml as cto

    known = cto.get_weights_metadata(model, weight_threshold=SMALLEST)
    settings = cto.OpPalettizerConfig(mode="custom", lut_function=_table, weight_threshold=SMALLEST)
    few = {name: settings for name, entry in known.items() if len(_values(entry.val)[0]) <= TABLES[-1]}
    return cto.palettize_weights(model, cto.OptimizationConfig(op_name_configs=few)) if few else model


def _values(weight: Any) -> tuple[Any, Any]:
    """Distinct values, and each element's number among them; numpy 2.4 misses some equal ones in float16."""
    import numpy as np

    return np.unique(weight.astype(np.float32), return_inverse=True)


def _table(weight: Any) -> tuple[Any, Any]:
    """The values of a weight, filled up to a size that iOS 17 has, and each element's number among them."""
    import numpy as np

    values, numbers = _values(weight)
    table = np.zeros(next(size for size in TABLES if size >= len(values)), weight.dtype)
    table[: len(values)] = values
    return table, numbers.reshape(-1).astype(np.uint8)


def _step_by_step() -> dict[Any, Any]:
    """Recurrent layers written out, time step by time step: coremltools translates none from torch.export."""
    import torch

    aten = torch.ops.aten
    written_out = torch._C.DispatchKey.CompositeImplicitAutograd
    operators = (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
    return {operator: operator.py_kernels[written_out] for operator in operators}


@dataclass(kw_only=True)
class CoreMlSession:
    """A package opened in Core ML on macOS, on the CPU; batches run sample by sample."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    engine: Any

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Shape of every input; samples are run one by one, so the batch is free."""
        arrays = [entry.type.multiArrayType for entry in self.engine.get_spec().description.input]
        return tuple(
            TensorSpec(name=name, shape=(None, *(int(n) for n in array.shape[1:])))
            for name, array in zip(self.inputs, arrays, strict=True)
        )

    def run(self, arrays: Arrays) -> Arrays:
        """Outputs for inputs [n, ...]."""
        import numpy as np

        parts: list[list[Any]] = [[] for _ in self.outputs]
        for number in range(len(arrays[0])):
            feed = {n: a[number : number + 1] for n, a in zip(self.inputs, arrays, strict=True)}
            answer = self.engine.predict(feed)
            for part, name in zip(parts, self.outputs, strict=True):
                part.append(answer[name])
        return tuple(np.concatenate(part) for part in parts)


def open_file(path: Path) -> CoreMlSession:
    """Open a package for running on macOS.

    Raises:
        InputError: coremltools is missing.
        ConversionError: it is not a package that Core ML runs.
    """
    require(_PACKAGES, extra="coreml", purpose="running Core ML")
    import coremltools as ct

    if not path.is_dir():
        raise ConversionError(f"no Core ML package at {path}")
    with translated(f"opening {path.name} in Core ML"):
        engine = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)
        spec = engine.get_spec()
    return CoreMlSession(
        inputs=tuple(entry.name for entry in spec.description.input),
        outputs=tuple(entry.name for entry in spec.description.output),
        engine=engine,
    )


def read_metadata(path: Path) -> dict[str, str]:
    """The package's user-defined metadata."""
    require(_PACKAGES, extra="coreml", purpose="reading Core ML")
    import coremltools as ct

    with translated(f"reading {path.name}"):
        spec = ct.utils.load_spec(str(path))
    return dict(spec.description.metadata.userDefined)


FORMAT: Final = Format(
    name="coreml",
    summary="Core ML for iPhone, iPad and Mac",
    suffix=".mlpackage",
    extra="coreml",
    write=write,
    read=read_metadata,
    open=open_file if _MACOS else None,
    closed_because="" if _MACOS else "interpreted on this machine: Core ML runs on macOS and iOS only",
    packages=_PACKAGES,
)
