"""An `.mlpackage` on disk, saved so that equal models give equal bytes."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from toolchain.foreign import translated


def save(model: Any, path: Path) -> None:
    """Save an MLModel so that equal models give equal bytes.

    coremltools names the package's items by random identifiers, numbers the operators that it adds in an
    order that depends on memory addresses, and protobuf orders maps as it likes.
    """
    with translated(f"saving {path.name}"):
        model.save(str(path))
        spec = model.get_spec()
        for function in spec.mlProgram.functions.values():
            for block in function.block_specializations.values():
                _renumber(block)
        file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
        file.write_bytes(spec.SerializeToString(deterministic=True))
        manifest = path / "Manifest.json"
        record = json.loads(manifest.read_text(encoding="utf-8"))
        stable = {key: _identifier(entry["path"]) for key, entry in record["itemInfoEntries"].items()}
        record["itemInfoEntries"] = {stable[k]: v for k, v in record["itemInfoEntries"].items()}
        record["rootModelIdentifier"] = stable[record["rootModelIdentifier"]]
        manifest.write_text(json.dumps(record, indent=4, sort_keys=True) + "\n", encoding="utf-8")


def _renumber(block: Any) -> None:
    """Operators called by type and number get their numbers in order; no operator refers to these names."""
    count: Counter[str] = Counter()
    for operation in (o for o in block.operations if "name" in o.attributes):
        names = operation.attributes["name"].immediateValue.tensor.strings.values
        found = re.fullmatch(rf"{operation.type}_\d+(\D.*)?", names[0]) if names else None
        if found:
            names[0] = f"{operation.type}_{count[operation.type]}{found[1] or ''}"
            count[operation.type] += 1


def _identifier(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"edgefit:{name}")).upper()
