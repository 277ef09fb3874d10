"""Core ML int8 weights by coremltools: one scale per output channel, activations stay fp16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolchain.artifacts import deliver
from toolchain.contracts import Quantizer
from toolchain.coreml_package import save
from toolchain.foreign import require, translated
from toolchain.same_weights import operators_of
from toolchain.values import Artifact

if TYPE_CHECKING:
    from toolchain.contracts import Arrays, Weights

SMALLEST: Final = 512
"""Weights with fewer elements stay fp16: their scales and the decoding would cost what they save."""


def quantize(source: Artifact, path: Path, samples: Sequence[Arrays] | None, in_float: Weights) -> Artifact:
    """Write a package with int8 weights, those of layers `in_float` in fp16; `samples` are not needed.

    Raises:
        InputError: coremltools is missing, or the disk refuses.
        ConversionError: the quantizer cannot treat the package, or a layer `in_float` is not in it.
    """
    require(("coremltools",), extra="coreml", purpose="quantizing Core ML")
    with translated(f"quantization of {source.path.name}"):
        model = _quantized(source.path, in_float)
    return deliver(
        path,
        lambda partial: save(model, partial),
        format_name="coreml",
        runtime="coreml",
        precision="int8-weights",
    )


def _quantized(source: Path, in_float: Weights) -> Any:
    import coremltools as ct
    from coremltools.optimize import coreml as cto

    settings = cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=SMALLEST
    )
    model = ct.models.MLModel(str(source), skip_model_load=True)
    large = {name: weight for name, weight in in_float.items() if weight.size > SMALLEST}
    known = cto.get_weights_metadata(model, weight_threshold=SMALLEST) if large else {}
    kept = operators_of(large, ((name, entry.val) for name, entry in known.items()), kind="float16")
    config = cto.OptimizationConfig(global_config=settings, op_name_configs=dict.fromkeys(kept))
    made = cto.linear_quantize_weights(model, config=config)
    made.user_defined_metadata.update(model.user_defined_metadata)
    made.author, made.version = model.author, model.version
    made.short_description = model.short_description
    return made


QUANTIZER: Final = Quantizer(
    name="coreml-int8-weights",
    format="coreml",
    runtime="coreml",
    precision="int8-weights",
    needs_data=False,
    quantize=quantize,
)
