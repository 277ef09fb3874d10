"""Makes `benchmarks` importable from the tests of a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
