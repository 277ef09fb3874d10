"""An ML Program taken apart: operations in order, with their constants; weights stay in the file until used.

The formats are those of coremltools' `MIL.proto` and of its weight files: a blob has 64 bytes of description
(sentinel, type, size in bytes, offset of the data), all little-endian; elements of fewer than 8 bits are
packed from the least significant bit on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from toolchain.errors import ConversionError
from toolchain.foreign import translated
from toolchain.verify.mil.refusal import Refused

Array = np.ndarray[Any, Any]
_SENTINEL: Final = 0xDEADBEEF
_DESCRIPTION: Final = np.dtype([("sentinel", "<u4"), ("kind", "<u4"), ("bytes", "<u8"), ("offset", "<u8")])
_WHOLE: Final[Mapping[str, str]] = {
    "BOOL": "bool",
    "FLOAT16": "<f2",
    "FLOAT32": "<f4",
    "FLOAT64": "<f8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
}
_PACKED: Final[Mapping[str, tuple[int, bool]]] = {
    "INT4": (4, True),
    "UINT1": (1, False),
    "UINT2": (2, False),
    "UINT3": (3, False),
    "UINT4": (4, False),
    "UINT6": (6, False),
}
"""Bits of an element, and whether the highest is a sign."""
_WIDENED: Final = {"uint16": "int32", "uint32": "int64"}
"""torch computes little with unsigned numbers of more than 8 bits."""
_FIELDS: Final = ("floats", "ints", "bools", "longInts", "doubles")
OPSETS: Final = ("CoreML5", "CoreML6", "CoreML7", "CoreML8")


@dataclass(frozen=True, kw_only=True)
class Type:
    """Type and shape of a tensor as declared: numpy's name of the type."""

    kind: str
    shape: tuple[int, ...]

    @cached_property
    def dtype(self) -> torch.dtype:
        """The same type in torch."""
        found: torch.dtype = getattr(torch, self.kind)
        return found


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation. `inputs` are names of values, lists of them, or constants written in place.

    `constant` is what a `const` holds; `outputs` has the name and declared type of each result, in order
    (None: a constant, whose type is its own).
    """

    kind: str
    name: str
    inputs: Mapping[str, Any]
    outputs: tuple[tuple[str, Type | None], ...]
    constant: Any = None


@dataclass(frozen=True, kw_only=True)
class Name:
    """A reference to the result of another operation or to an input."""

    name: str


@dataclass(frozen=True, kw_only=True)
class MlProgram:
    """The main function of a package: declared inputs, operations in order, names of the results."""

    opset: str
    inputs: tuple[tuple[str, Type], ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]


def read(path: Path) -> MlProgram:
    """The main function of an `.mlpackage`.

    Raises:
        ConversionError: it cannot be read, or its weight file is damaged.
        Refused: it is no ML Program, or has types that are not interpreted here.
    """
    import coremltools as ct

    with translated(f"reading {path.name}"):
        spec = ct.utils.load_spec(str(path))
    if spec.WhichOneof("Type") != "mlProgram":
        raise Refused(f"{path.name} is no ML Program but a '{spec.WhichOneof('Type')}'")
    odd = [i.name for i in spec.description.input if i.type.WhichOneof("Type") != "multiArrayType"]
    if odd:
        raise Refused(f"input '{odd[0]}' of {path.name} is no array of numbers")
    return _Reader(path / "Data" / "com.apple.CoreML").function(spec.mlProgram, spec.description)


class _Reader:
    """Translates protobuf messages; the weight files lie under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Array] = {}

    def function(self, program: Any, description: Any) -> MlProgram:
        if list(program.functions) != ["main"]:
            raise Refused(f"functions {sorted(program.functions)} instead of 'main' alone")
        main = program.functions["main"]
        if main.opset not in OPSETS:
            raise Refused(f"operators of '{main.opset}': known are {', '.join(OPSETS)}")
        block = main.block_specializations[main.opset]
        return MlProgram(
            opset=main.opset,
            inputs=tuple((entry.name, _type(entry.type, entry.name)) for entry in main.inputs),
            outputs=tuple(entry.name for entry in description.output),
            operations=tuple(self._operation(op) for op in block.operations),
        )

    def _operation(self, op: Any) -> Operation:
        name = self._value(op.attributes["name"]) if "name" in op.attributes else ""
        if op.blocks:
            raise Refused(f"operator '{op.type}' ('{name}'): control flow is not interpreted")
        constant = self._value(op.attributes["val"]) if op.type == "const" else None
        attributes = {key: self._value(v) for key, v in op.attributes.items() if key not in ("name", "val")}
        inputs = {key: self._argument(argument) for key, argument in op.inputs.items()}
        return Operation(
            kind=op.type,
            name=str(name),
            inputs={**attributes, **inputs},
            outputs=tuple(
                (o.name, None if op.type == "const" else _type(o.type, o.name)) for o in op.outputs
            ),
            constant=constant,
        )

    def _argument(self, argument: Any) -> Any:
        found = [
            Name(name=b.name) if b.WhichOneof("binding") == "name" else self._value(b.value)
            for b in argument.arguments
        ]
        return found[0] if len(found) == 1 else found

    def _value(self, value: Any) -> Any:
        """Text as str, numbers as a tensor."""
        if value.type.WhichOneof("type") != "tensorType":
            raise Refused(f"a constant of type '{value.type.WhichOneof('type')}'")
        tensor = value.type.tensorType
        if _kind(tensor) == "STRING":
            return str(value.immediateValue.tensor.strings.values[0])
        shape = _shape(tensor, "a constant")
        array = self._stored(value, _kind(tensor), math.prod(shape))
        wide = _WIDENED.get(array.dtype.name, array.dtype)
        return torch.from_numpy(array.astype(wide, copy=False).reshape(shape))

    def _stored(self, value: Any, kind: str, count: int) -> Array:
        if value.WhichOneof("value") == "blobFileValue":
            return _elements(self._blob(value.blobFileValue, kind, count), kind, count)
        tensor = value.immediateValue.tensor
        field = tensor.WhichOneof("value")
        if field == "bytes":
            return _elements(np.frombuffer(bytearray(tensor.bytes.values), np.uint8), kind, count)
        if field not in _FIELDS or kind not in _WHOLE:
            raise Refused(f"a constant of type '{kind}' written as '{field}'")
        return np.array(getattr(tensor, field).values, _WHOLE[kind])

    def _blob(self, place: Any, kind: str, count: int) -> Array:
        """The bytes of a blob, mapped from the file: nothing is read before it is used."""
        name, start = place.fileName, int(place.offset)
        if name not in self._files:
            file = self._folder / name.replace("@model_path/", "")
            with translated(f"opening {file.name}"):
                self._files[name] = np.memmap(file, np.uint8, mode="c")
        data, length = self._files[name], -(-_bits(kind) * count // 8)
        head = data[start : start + _DESCRIPTION.itemsize]
        if len(head) == _DESCRIPTION.itemsize:
            entry = head.view(_DESCRIPTION)[0]
            begin = int(entry["offset"])
            found = data[begin : begin + length]
            if entry["sentinel"] == _SENTINEL and int(entry["bytes"]) == length == len(found):
                return np.asarray(found)
        raise ConversionError(f"the weight file is damaged: no {length} bytes of {kind} at {start}")


def _bits(kind: str) -> int:
    if kind in _PACKED:
        return _PACKED[kind][0]
    if kind not in _WHOLE:
        raise Refused(f"numbers of type '{kind}' are not interpreted")
    return 8 * np.dtype(_WHOLE[kind]).itemsize


def _elements(data: Array, kind: str, count: int) -> Array:
    """`count` numbers of a kind from their bytes."""
    if kind in _PACKED:
        return unpacked(data, count, *_PACKED[kind])
    _bits(kind)
    return data.view(_WHOLE[kind])


def unpacked(data: Array, count: int, bits: int, signed: bool = False) -> Array:
    """`count` integers of `bits` bits each from bytes filled from the least significant bit on."""
    each = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    weights = 2 ** np.arange(bits, dtype=np.int16)
    if signed:
        weights[-1] = -weights[-1]
    return (each @ weights).astype(np.int8 if signed else np.uint8)


def _kind(tensor: Any) -> str:
    from coremltools.proto import MIL_pb2

    return str(MIL_pb2.DataType.Name(tensor.dataType))


def _shape(tensor: Any, what: str) -> tuple[int, ...]:
    if any(d.WhichOneof("dimension") != "constant" for d in tensor.dimensions):
        raise Refused(f"{what} has a flexible shape")
    return tuple(int(d.constant.size) for d in tensor.dimensions)


def _type(value: Any, name: str) -> Type:
    """The declared type of a value; small integers count as the bytes that they are kept in."""
    if value.WhichOneof("type") != "tensorType":
        raise Refused(f"'{name}' is a '{value.WhichOneof('type')}'")
    kind = _kind(value.tensorType)
    shape = _shape(value.tensorType, f"'{name}'")
    if kind in _PACKED:
        return Type(kind="int8" if _PACKED[kind][1] else "uint8", shape=shape)
    if kind not in _WHOLE:
        raise Refused(f"'{name}' is of type '{kind}'")
    plain = np.dtype(_WHOLE[kind]).name
    return Type(kind=_WIDENED.get(plain, plain), shape=shape)
