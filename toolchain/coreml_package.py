"""An `.mlpackage` on disk: saved so that equal models give equal bytes, and its weights decoded again."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolchain.foreign import translated

if TYPE_CHECKING:
    import numpy as np

_WEIGHTED: Final = ("conv", "conv_transpose", "linear")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a package says of itself: names with shapes, and the decoded weights of its layers, in order."""

    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[str, ...]
    weights: tuple[np.ndarray[Any, Any], ...]


def save(model: Any, path: Path) -> None:
    """Save an MLModel so that equal models give equal bytes.

    coremltools names the package's items by random identifiers and protobuf orders maps as it likes.
    """
    with translated(f"saving {path.name}"):
        model.save(str(path))
        spec = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
        spec.write_bytes(model.get_spec().SerializeToString(deterministic=True))
        manifest = path / "Manifest.json"
        record = json.loads(manifest.read_text(encoding="utf-8"))
        stable = {key: _identifier(entry["path"]) for key, entry in record["itemInfoEntries"].items()}
        record["itemInfoEntries"] = {stable[k]: v for k, v in record["itemInfoEntries"].items()}
        record["rootModelIdentifier"] = stable[record["rootModelIdentifier"]]
        manifest.write_text(json.dumps(record, indent=4, sort_keys=True) + "\n", encoding="utf-8")


def _identifier(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"edgefit:{name}")).upper()


def read(path: Path) -> Contents:
    """Open a package without running it.

    Raises:
        ConversionError: the package cannot be read.
    """
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    with translated(f"reading {path.name}"):
        spec = ct.utils.load_spec(str(path))
        folder = path / "Data" / "com.apple.CoreML" / "weights"
        program = load(spec, spec.specificationVersion, str(folder))
        weights = tuple(_weights(program.functions["main"]))
    description = spec.description
    return Contents(
        inputs=tuple((i.name, tuple(i.type.multiArrayType.shape)) for i in description.input),
        outputs=tuple(o.name for o in description.output),
        weights=weights,
    )


def _weights(function: Any) -> list[Any]:
    import numpy as np

    found = []
    for op in function.operations:
        if op.op_type in _WEIGHTED:
            value = _decoded(op.inputs["weight"])
            if value is not None:
                found.append(np.asarray(value, dtype=np.float64))
    return found


def _decoded(variable: Any) -> Any:
    """The value of a constant, decompressed where it is stored compressed."""
    maker = variable.op
    if maker is not None and maker.op_type.startswith("constexpr"):
        return maker.materialized_val_inference()
    return variable.val
