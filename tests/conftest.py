"""Makes `benchmarks` importable from the tests of a checkout, Ctrl-C known to them, and the user's cache not.

A shell that starts a job in the background has it ignore SIGINT, and so do all its children; the tests that
send one would then wait for nothing.
"""

import gc
import signal
import sys
from pathlib import Path

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    # Under nohup a program that tests start would ignore it too.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.path.insert(0, str(Path(__file__).parents[1]))
gc.set_threshold(10_000, 20, 50)


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory):
    """The folder of layer timings for all tests and the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEFIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def what_was_imported_stays():
    """Collections of garbage pass over what a module has loaded: for torch alone each would take 0.7 s."""
    yield
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """What is frozen would be reported as leaked by the extensions that made it."""
    gc.unfreeze()
