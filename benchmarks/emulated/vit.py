"""Train a small vision transformer on CIFAR-10, to see what int8 makes of trained attention.

    python -m benchmarks.emulated.vit --data cifar10 --out vit.pt2

Convolutions make 8 x 8 tokens of 64 numbers (Xiao et al. 2021, "Early convolutions help transformers see
better"), then four blocks (Dosovitskiy et al. 2021) and the mean over the tokens: 12 million
multiply-accumulates, about two minutes an epoch on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention
from torch.optim.lr_scheduler import OneCycleLR

from benchmarks.better.train import BATCH, INPUT, top1
from toolchain.train.data import open_data
from toolchain.values import Preprocessing

WIDTH: Final = 64
HEADS: Final = 2
BLOCKS: Final = 4
PEAK: Final = 2e-3


class _Block(nn.Module):
    """Attention and two layers, each after a layer normalization and with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x)).unflatten(2, (3, HEADS, WIDTH // HEADS))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = scaled_dot_product_attention(query, key, value)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Images [n, 3, 32, 32] to logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTH // 2, 3, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTH // 2),
            nn.ReLU(),
            nn.Conv2d(WIDTH // 2, WIDTH, 3, 2, 1),
        )
        self.position = nn.Parameter(torch.randn(1, 64, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(_Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.position
        answer: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return answer


def main() -> None:
    """Train, save the archive and, beside it as JSON, what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as folders train/ and val/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    flags = parser.parse_args()
    data = open_data(str(flags.data), preprocessing=Preprocessing(), program_inputs=(INPUT,))
    torch.manual_seed(0)
    model, started = Vit(), time.process_time()
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.05)
    steps = flags.epochs * -(-data.train_size // BATCH)
    schedule = OneCycleLR(optimiser, max_lr=PEAK, total_steps=steps, pct_start=0.2)
    for epoch in range(flags.epochs):
        model.train()
        for inputs, labels in data.train(BATCH, seed=epoch, augment=True):
            optimiser.zero_grad(set_to_none=True)
            loss = cross_entropy(model(inputs[0]), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{flags.epochs}: top-1 {top1(model, data):.2f} %", flush=True)
    model.eval()
    sample = (torch.zeros(4, 3, 32, 32),)
    program = torch.export.export(model, sample, dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, flags.out)
    record = {
        "epochs": flags.epochs,
        "top1": top1(model, data),
        "cpu_seconds": round(time.process_time() - started),
    }
    flags.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
