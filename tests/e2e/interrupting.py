"""A part of the digits, and a command in a process of its own that gets Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def part_of(digits, count, folder):
    """(digits.pt2, few.npz): the network and the first `count` of its samples, for short epochs."""
    model, data = digits
    arrays, path = np.load(data), folder / "few.npz"
    np.savez(path, **{name: arrays[name][:count] for name in arrays.files})
    return model, path


def interrupted(words, folder, ready, *, every):
    """(exit code, stdout, stderr) of `edgefit WORDS` in `folder`: SIGINT once `ready()`, asked `every` s."""
    process = subprocess.Popen(
        [sys.executable, "-m", "toolchain.cli", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    patience = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < patience:
        if ready():
            process.send_signal(signal.SIGINT)
            break
        time.sleep(every)
    text, progress = process.communicate(timeout=120)
    return process.returncode, text, progress
