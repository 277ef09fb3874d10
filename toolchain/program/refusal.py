"""What torch.export cannot capture, said in one line: where it is, what depends on what, what to do instead.

Control flow on the values of tensors, and results whose size the data decide (box selection in detection
models), have no fixed graph: nothing could be pruned, converted or measured reliably.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, free_unbacked_symbols

from toolchain.errors import UnsupportedError
from toolchain.foreign import first_line

_TORCH_ROOT: Final = str(Path(torch.__file__).parent)
_DEPENDENT: Final = (
    GuardOnDataDependentSymNode,
    DataDependentOutputException,
    DynamicOutputShapeException,
)
_CUT_OFF: Final = (
    "give the network up to its raw outputs (for a detector: a module that returns the boxes and scores of "
    "backbone and heads) and select from the outputs of the compressed network"
)
_REWRITE: Final = (
    "Python control flow on tensor values cannot be captured: use torch.where or torch.cond, "
    "or capture the part without it"
)


def refused(error: Exception) -> UnsupportedError:
    """The failure of an export in one line."""
    frames = list(_user_frames(error))
    place = f" ({frames[0]})" if frames else ""
    selecting = next((frame for frame in frames if "nms" in frame.partition(", in ")[2]), "")
    text, hint = first_line(error), _REWRITE
    if depends_on_values(error):
        text = "what it computes depends on the values of tensors"
        if selecting:
            text, hint = "how many boxes non-maximum suppression keeps depends on the data", _CUT_OFF
    return UnsupportedError(f"cannot capture the network{place}: {text}", hint=hint)


def depends_on_values(error: BaseException | None) -> bool:
    """Whether the export failed because control flow or a size depends on the values of tensors."""
    while error is not None:
        if isinstance(error, _DEPENDENT):
            return True
        error = error.__cause__ or error.__context__
    return False


def refuse_open_sizes(module: GraphModule) -> None:
    """Refuse a captured graph in which some size is known only once it has run.

    Raises:
        UnsupportedError: names the first operator whose result has such a size.
    """
    for node in module.graph.nodes:
        value: Any = node.meta.get("val")
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, torch.Tensor) and free_unbacked_symbols(part):
                raise UnsupportedError(
                    f"cannot treat the network: the size of what {node.name} ({node.target}) yields "
                    "depends on the data",
                    hint=_CUT_OFF,
                )


def _user_frames(error: BaseException) -> Iterator[str]:
    """`file.py:12, in forward` for lines of the traceback that are neither torch's nor ours, inner first."""
    ours = (_TORCH_ROOT, str(Path(__file__).parent), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(ours):
            yield f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
