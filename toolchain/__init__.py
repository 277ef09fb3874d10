"""Edgefit: from a trained network and a latency budget to a smaller network that holds it."""

import os

__version__ = "0.1.0"

# ONNX Runtime's own builds keep an identifier and what was run in the user's cache and send it to their
# makers, from a thread that wakes beside a measurement; from 1.31 on Linux too. Set before anything loads it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
