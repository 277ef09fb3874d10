"""From what a runtime told of its operators to a `Placement`.

The C runner has LiteRT tell which operators of the graph its interpreter runs itself: the others went to
XNNPACK. How many there are, and what they are called, is in the file. Core ML tells of each operator where it
plans to run it. onnxruntime's CPU build has one place for all operators, so there is nothing to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolchain.errors import DeviceError
from toolchain.placement import Away, Placement

Record = Mapping[str, Any]


def placements(records: Sequence[Record], paths: Sequence[Path]) -> tuple[Placement | None, ...]:
    """The placement of each model of a job; None where its runtime did not tell.

    Raises:
        DeviceError: a record cannot be read, or tells of operators that the file does not have.
    """
    return tuple(placement(records, number, path) for number, path in enumerate(paths))


def placement(records: Sequence[Record], number: int, path: Path) -> Placement | None:
    """The placement of model `number` of a job, whose file is at `path`.

    Raises:
        DeviceError: as `placements`.
    """
    mine = [r for r in records if r["type"] == "placement" and r["model"] == number]
    return _placement(mine[0], path) if mine else None


def _placement(record: Record, path: Path) -> Placement:
    try:
        if "nodes" not in record:
            away = tuple(
                Away(**{key: entry[key] for key in ("name", "kind", "device")}) for entry in record["away"]
            )
            return Placement(accelerator=record["accelerator"], operators=int(record["operators"]), away=away)
        names = operator_names(path)
        # What delegates put in their place is counted behind the file's own operators.
        mine = [(node, kind) for node, kind in record["nodes"] if node < len(names)]
        left = tuple(Away(name=names[node], kind=kind, device="CPU") for node, kind in mine)
        return Placement(accelerator=record["accelerator"], operators=len(names), away=left)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DeviceError(f"what the runtime tells of the operators of {path.name} cannot be read") from error


def operator_names(path: Path) -> list[str]:
    """Of each operator of a TFLite file's first graph, in its order, the name of what it gives."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        name = graph.tensors[operator.outputs[0]].name if len(operator.outputs) else b""
        found.append(name.decode(errors="replace") if isinstance(name, bytes) else str(name))
    return found
