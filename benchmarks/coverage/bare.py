"""The exporters as their documentation shows them, for comparison: from the eager module to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn


def onnx(module: nn.Module, example: Tensor, path: Path) -> None:
    """torch's exporter, the batch dynamic as in our files."""
    torch.onnx.export(
        module,
        (example,),
        path.with_suffix(".onnx"),
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
        verbose=False,
    )


def tflite(module: nn.Module, example: Tensor, path: Path) -> None:
    """LiteRT's converter for PyTorch, at batch 1."""
    import litert_torch

    litert_torch.convert(module, (example[:1],)).export(str(path.with_suffix(".tflite")))


def coreml(module: nn.Module, example: Tensor, path: Path) -> None:
    """coremltools from torch.export, at batch 1, for the same systems as our files."""
    import coremltools as ct

    graph = torch.export.export(module, (example[:1],)).run_decompositions({})
    model = ct.convert(graph, minimum_deployment_target=ct.target.iOS17, skip_model_load=True)
    model.save(str(path.with_suffix(".mlpackage")))


EXPORTERS: Final[dict[str, Callable[[nn.Module, Tensor, Path], None]]] = {
    "onnx": onnx,
    "tflite": tflite,
    "coreml": coreml,
}
