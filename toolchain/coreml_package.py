"""An `.mlpackage` on disk, saved so that equal models give equal bytes."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from toolchain.foreign import translated


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
