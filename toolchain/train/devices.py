"""Where training computes, and how precisely."""

from __future__ import annotations

import torch

from toolchain.processes import place


def best_device() -> torch.device:
    """CUDA or MPS when there is one, else the CPU; of several GPUs the one of this process."""
    if torch.cuda.is_available():
        return torch.device("cuda", place() % torch.cuda.device_count())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def computing(device: torch.device, *, half: bool) -> torch.autocast:
    """Forward passes in bfloat16, where asked for and on a GPU that has it; else as they are."""
    there = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half and there)
