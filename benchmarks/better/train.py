"""Train the networks of the comparison that nobody hands in; one command, one seed.

    python -m benchmarks.better.train --resnet20 resnet20_cifar10.pt2 --data cifar10 --out models

Every network is saved as OUT/NAME.pt, its weights, and OUT/NAME.pt2, an archive; what is there is not trained
again. ResNet-20 with convolutions as shortcuts starts as the exact equal of the network handed in, and learns
for an epoch. OUT/NAME.json says what came of it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from benchmarks.better.networks import NETWORKS
from toolchain.contracts import Data
from toolchain.train.data import open_data
from toolchain.values import Preprocessing, TensorSpec

EPOCHS: Final = {"resnet20": 0, "resnet20-conv": 1, "vgg": 7, "mobilenet": 11}
PEAK: Final = {"resnet20-conv": 0.01, "vgg": 0.1, "mobilenet": 0.1}
BATCH: Final = 128
INPUT: Final = TensorSpec(name="x", shape=(None, 3, 32, 32), dtype="float32")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resnet20", type=Path, required=True, help="the trained ResNet-20, an archive")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as folders train/ and val/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=sorted(NETWORKS), default=list(NETWORKS))
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    data = open_data(str(flags.data), preprocessing=Preprocessing(), program_inputs=(INPUT,))
    for name in flags.only:
        if not (flags.out / f"{name}.json").exists():
            made(name, flags.resnet20, data, flags.out)
    return 0


def made(name: str, resnet20: Path, data: Data, out: Path) -> None:
    """Train one network and save it."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    if name.startswith("resnet20"):
        weights = torch.export.load(resnet20).state_dict
        missing, unexpected = model.load_state_dict(weights, strict=False)
        if unexpected or any("shortcut" not in key for key in missing):
            raise SystemExit(f"{resnet20} is not the ResNet-20 expected: {unexpected or missing}")
    started, before = time.process_time(), top1(model, data)
    if EPOCHS[name]:
        train(model, data, EPOCHS[name], PEAK[name])
    record = {
        "network": name,
        "epochs": EPOCHS[name],
        "peak_lr": PEAK.get(name),
        "batch": BATCH,
        "seed": 0,
        "top1_before": before,
        "top1": top1(model, data),
        "cpu_seconds": round(time.process_time() - started),
    }
    save(model, out / name)
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record), flush=True)


def train(model: nn.Module, data: Data, epochs: int, peak: float) -> None:
    """SGD with one cycle of the learning rate; batch norm's scales and all biases are not decayed."""
    # Training is a third faster with channels innermost, on the CPU too.
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * -(-data.train_size // BATCH)
    schedule = OneCycleLR(optimiser, max_lr=peak, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for inputs, labels in data.train(BATCH, seed=epoch, augment=True):
            optimiser.zero_grad(set_to_none=True)
            loss = cross_entropy(model(inputs[0].contiguous(memory_format=torch.channels_last)), labels)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(labels)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / data.train_size:.3f}", flush=True)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def top1(model: nn.Module, data: Data) -> float:
    """Percent of the validation images that are named rightly."""
    model.eval()
    right = 0
    with torch.no_grad():
        for inputs, labels in data.validation(BATCH):
            right += int((model(inputs[0]).argmax(1) == labels).sum())
    return 100.0 * right / data.validation_size


def save(model: nn.Module, path: Path) -> None:
    """Weights for those who need the module, an archive for those who need none."""
    model.eval()
    torch.save(model.state_dict(), path.with_suffix(".pt"))
    sample = (torch.zeros(4, 3, 32, 32),)
    program = torch.export.export(model, sample, dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, path.with_suffix(".pt2"))


if __name__ == "__main__":
    raise SystemExit(main())
