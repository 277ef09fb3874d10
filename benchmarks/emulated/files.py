"""The files of the benchmark: ResNet-20, MobileNetV2 and two vision transformers, in float and in int8.

ResNet-20 and the small transformer are trained and calibrated with images, the other two have random weights
and are calibrated with random samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from benchmarks.coverage import foreign_zoo, zoo
from toolchain.assembly import CALIBRATION, format_named, quantizers
from toolchain.load.opening import load
from toolchain.program.capture import capture
from toolchain.program.lower import lower
from toolchain.train.data import open_data
from toolchain.values import Preprocessing, Program

if TYPE_CHECKING:
    from toolchain.contracts import Arrays

FORMATS: Final = ("onnx", "tflite")
RANDOM_SAMPLES: Final = 16


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The trained networks, as archives, and the images that they were trained on."""

    resnet20: Path
    vit: Path
    data: Path


def built(sources: Sources, out: Path) -> tuple[Path, ...]:
    """All files of all networks in `out`; what is there is not made again."""
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name in ("resnet20", "mobilenet_v2", "vit", "vit_tiny"):
        wanted = [out / f"{name}{part}.{kind}" for kind in FORMATS for part in ("", ".int8")]
        if not all(path.exists() for path in wanted):
            _write(*_network(name, sources), name, out)
        files += wanted
    return tuple(files)


def _network(name: str, sources: Sources) -> tuple[Program, Sequence[Arrays]]:
    """The network, and what its int8 files are calibrated with."""
    if name in ("resnet20", "vit"):
        program = load(sources.resnet20 if name == "resnet20" else sources.vit)
        data = open_data(
            str(sources.data), preprocessing=Preprocessing(), program_inputs=tuple(program.inputs)
        )
        inputs, _ = data.calibration(CALIBRATION)
        return program, [tuple(x.numpy() for x in inputs)]
    module = zoo.build(name)[0] if name != "vit_tiny" else _vit_tiny()
    samples = np.random.default_rng(0).standard_normal((RANDOM_SAMPLES, 3, 224, 224), dtype=np.float32)
    return capture(module, (torch.from_numpy(samples[:2]),), name=name), [(samples,)]


def _vit_tiny() -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = foreign_zoo.timm().create_model("vit_tiny_patch16_224", pretrained=False)
    return module.eval()


def _write(program: Program, samples: Sequence[Arrays], name: str, out: Path) -> None:
    for kind in FORMATS:
        plain = format_named(kind).write(lower(program), out / f"{name}.{kind}", {})
        quantizers(kind)["int8"].quantize(plain, out / f"{name}.int8.{kind}", samples, {})
