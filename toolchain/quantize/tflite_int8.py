"""TFLite int8 by AI Edge Quantizer: static int8 activations, int8 weights per output channel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolchain.artifacts import deliver
from toolchain.contracts import Quantizer
from toolchain.errors import InputError
from toolchain.foreign import require, translated
from toolchain.values import Artifact

if TYPE_CHECKING:
    from toolchain.contracts import Arrays


def quantize(source: Artifact, path: Path, samples: Sequence[Arrays] | None) -> Artifact:
    """Write an int8 file; its inputs and outputs stay float32.

    Raises:
        InputError: packages or calibration samples are missing, or the disk refuses.
        ConversionError: the quantizer cannot treat the file.
    """
    require(("ai_edge_quantizer", "ai_edge_litert"), extra="tflite", purpose="quantizing TFLite")
    if not samples:
        raise InputError("int8 needs calibration samples", hint="give --data, or leave int8 out")
    with translated(f"quantization of {source.path.name}"):
        content = _quantized(source.path, samples)
    return deliver(
        path,
        lambda partial: _save(partial, content),
        format_name="tflite",
        runtime="litert",
        precision="int8",
    )


def _save(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _quantized(source: Path, samples: Sequence[Arrays]) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer, recipe
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    names, batch, key = _signature(source)
    engine = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    for boundary in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        # An application hands in and takes out what it did with the float file.
        engine.update_quantization_recipe(
            regex=".*", operation_name=boundary, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    ranges = engine.calibrate({key: list(_feeds(names, samples, batch))})
    return bytes(engine.quantize(ranges).quantized_model)


def _signature(source: Path) -> tuple[tuple[str, ...], int, str]:
    """Input names in order, the batch and the key of the file's signature."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(source.read_bytes(), 0)
    graph, signature = model.Subgraphs(0), model.SignatureDefs(0)
    named = {
        signature.Inputs(i).TensorIndex(): signature.Inputs(i).Name() for i in range(graph.InputsLength())
    }
    names = tuple(named[graph.Inputs(i)].decode() for i in range(graph.InputsLength()))
    return names, int(graph.Tensors(graph.Inputs(0)).Shape(0)), signature.SignatureKey().decode()


def _feeds(names: Sequence[str], samples: Sequence[Arrays], batch: int) -> Iterator[dict[str, Any]]:
    for arrays in samples:
        for start in range(0, len(arrays[0]) - batch + 1, batch):
            yield dict(zip(names, (a[start : start + batch] for a in arrays), strict=True))


QUANTIZER: Final = Quantizer(
    name="tflite-int8", format="tflite", precision="int8", needs_data=True, quantize=quantize
)
