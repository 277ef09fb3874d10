"""A small network with random weights, where a real one has trained ones: python network.py keyword.pt2."""

import sys

import torch
from torch import nn


def main() -> None:
    """Write the network as a torch.export archive."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip
    example = (torch.randn(2, 1, 28, 28),)
    program = torch.export.export(network, example, dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, sys.argv[1])


if __name__ == "__main__":
    main()
