"""A second process that helps this one to train, as `torchrun` would start it."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


def settings(rank, port, size=2):
    """What `torchrun` puts into the environment."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    return {**{k: str(v) for k, v in place.items()}, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def helper(words, monkeypatch, *, lead=True, size=2):
    """The second process, on the command line `edgefit WORDS`; in the body this process is the first."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "toolchain.cli", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **settings(1, port, size)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with monkeypatch.context() as patch:
        for name, value in settings(0, port, size).items():
            patch.setenv(name, value)
        try:
            yield process
        finally:
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise
