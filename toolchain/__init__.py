"""Edgefit: from a trained network and a latency budget to a smaller network that holds it."""

__version__ = "0.1.0"
