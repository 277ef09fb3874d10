"""How well layer timings predict whole networks: ResNet-20 variants of random widths, predicted and measured.

    python -m benchmarks.predictor.run --variants 16 --out benchmarks/predictor/results.json

Every variant is built, exported and quantized as the product does it, measured interleaved with all others,
and compared with the prediction from the layer timings and the measurement of the full network alone. The
weights are random: they do not matter for the time. Prints one table; keeps all numbers in the result file.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from targets.host import TARGET
from toolchain import registry
from toolchain.contracts import Format, Quantizer, Runtime, Sampling, Silent
from toolchain.latency.filling import build_table
from toolchain.latency.predict import calibrated, original
from toolchain.latency.table import Axes, grid
from toolchain.program.capture import capture
from toolchain.values import Artifact, Layer, Measurement, Precision

Widths = tuple[tuple[int, ...], tuple[int, ...]]
FULL: Widths = ((16, 32, 64), (16, 16, 16, 32, 32, 32, 64, 64, 64))


class Block(nn.Module):
    """Two convolutions and an option-A shortcut."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.more:
            x = nn.functional.pad(x, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return torch.relu(y + x)


class Network(nn.Module):
    """ResNet-20 for 32 x 32 images with the widths of its three trunks and nine inner layers."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        trunk, inner = widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, trunk[0], 3, 1, 1, bias=False), nn.BatchNorm2d(trunk[0]), nn.ReLU()
        )
        inputs = [trunk[0], *(trunk[k // 3] for k in range(8))]
        self.blocks = nn.Sequential(
            *(Block(inputs[k], inner[k], trunk[k // 3], 2 if k in (3, 6) else 1) for k in range(9))
        )
        self.head = nn.Linear(trunk[2], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.avg_pool2d(self.blocks(self.stem(x)), 8).flatten(1))


def variants(count: int, step: int = 4) -> list[Widths]:
    """The full network, then `count` random ones with widths in multiples of `step`, trunks ascending."""
    draw = random.Random(0)
    found = [FULL]
    for _ in range(count):
        trunk: list[int] = []
        for full in FULL[0]:
            trunk.append(max([draw.randrange(step, full + 1, step), *trunk[-1:]]))
        found.append((tuple(trunk), tuple(draw.randrange(step, full + 1, step) for full in FULL[1])))
    return found


def layers(module: nn.Module) -> list[Layer]:
    """The convolutions and the linear layer, with the sizes that one forward pass shows."""
    found: list[Layer] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(layer, nn.Linear):
                sizes = {"in_channels": layer.in_features, "out_channels": layer.out_features}
                found.append(Layer(node=name, kind="linear", weight=f"{name}.weight", **sizes))
            elif isinstance(layer, nn.Conv2d):
                found.append(
                    Layer(
                        node=name,
                        kind="conv",
                        weight=f"{name}.weight",
                        in_channels=layer.in_channels,
                        out_channels=layer.out_channels,
                        kernel=layer.kernel_size,
                        stride=layer.stride,
                        padding=tuple(layer.padding),
                        dilation=layer.dilation,
                        input_size=tuple(inputs[0].shape[2:]),
                        output_size=tuple(output.shape[2:]),
                    )
                )

        return hook

    handles = [
        m.register_forward_hook(note(n))
        for n, m in module.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        module(torch.zeros(1, 3, 32, 32))
    for handle in handles:
        handle.remove()
    return found


def export(module: nn.Module, name: str, folder: Path) -> dict[tuple[str, Precision], Artifact]:
    """The network's files for every runtime and precision of the target."""
    program = capture(module, (torch.zeros(2, 3, 32, 32),), name=name)
    samples = [(np.random.default_rng(0).standard_normal((32, 3, 32, 32), dtype=np.float32),)]
    quantizers: list[Quantizer] = [
        registry.find("toolchain.quantize", "QUANTIZER", n) for n in registry.names("toolchain.quantize")
    ]
    made: dict[tuple[str, Precision], Artifact] = {}
    for runtime in TARGET.runtimes:
        form: Format = registry.find("toolchain.export", "FORMAT", runtime.format)
        artifact = form.write(program, folder / f"{name}{form.suffix}", {})
        made[runtime.name, "fp32"] = artifact
        for quantizer in quantizers:
            if quantizer.format == runtime.format and quantizer.precision == "int8":
                path = folder / f"{name}.int8{form.suffix}"
                made[runtime.name, "int8"] = quantizer.quantize(artifact, path, samples)
    return made


def compare(
    runtime: Runtime,
    precision: Precision,
    measured: list[Measurement],
    networks: list[list[Layer]],
    cache: Path,
) -> Mapping[str, object]:
    """Predictions against measurements, the full network (which calibrates) left out of the errors."""
    full = networks[0]
    axes = {
        layer.node: Axes(
            inputs=(3,) if layer.in_channels == 3 else grid(layer.in_channels, runtime.align),
            outputs=(10,) if layer.kind == "linear" else grid(layer.out_channels, runtime.align),
        )
        for layer in full
    }
    table = build_table(
        TARGET.connect(), runtime, precision, full, axes, threads=1, cache=cache, progress=Silent()
    )
    model = calibrated(table, full, measured[0].p50_ms)
    predicted = []
    for network in networks:
        widths = {layer.node: original(layer) for layer in network}
        predicted.append(model.predict(widths).ms)
    actual = np.array([m.p50_ms for m in measured])
    errors = np.abs(np.array(predicted) / actual - 1)[1:]
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, actual)]
    return {
        "runtime": runtime.name,
        "precision": precision,
        "mape_percent": round(100 * float(errors.mean()), 2),
        "worst_percent": round(100 * float(errors.max()), 2),
        "rank_correlation": round(float(np.corrcoef(*ranks)[0, 1]), 3),
        "full_ms": round(float(actual[0]), 4),
        "smallest_ms": round(float(actual.min()), 4),
        "measured_ms": [round(float(ms), 4) for ms in actual],
        "predicted_ms": [round(float(ms), 4) for ms in predicted],
        "conditions": asdict(measured[0].conditions),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--variants", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    widths = variants(arguments.variants)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        modules = [Network(w).eval() for w in widths]
        files = [export(module, f"variant{k}", Path(scratch)) for k, module in enumerate(modules)]
        networks = [layers(module) for module in modules]
        for runtime in TARGET.runtimes:
            for precision in runtime.precisions:
                artifacts = [made[runtime.name, precision] for made in files]
                measured = TARGET.connect().measure(artifacts, Sampling(), Silent())
                result = compare(runtime, precision, list(measured), networks, Path(scratch) / "cache")
                results.append(result)
                print(*(f"{key} {result[key]}" for key in list(result)[:7]), sep="   ")
    record = {"widths": widths, "results": results}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
