"""The command line of the product, as benchmarks run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def edgefit(*words: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`edgefit WORDS` in a process of its own; layer timings in `cache`, or where the user has them."""
    own = {} if cache is None else {"EDGEFIT_CACHE": str(cache.absolute())}
    return subprocess.run(
        [sys.executable, "-m", "toolchain.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **own},
    )
