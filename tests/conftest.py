"""Makes `benchmarks` importable from the tests of a checkout, and Ctrl-C known to them.

A shell that starts a job in the background has it ignore SIGINT, and so do all its children; the tests that
send one would then wait for nothing.
"""

import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, str(Path(__file__).parents[1]))
