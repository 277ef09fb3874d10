"""The comparisons behind the checks: exact numbers, and each one can fail."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.program.capture import capture
from toolchain.verify.parity import agreement, check_float, check_quantized, relative_error, snr_db
from toolchain.verify.tolerance import FLOAT_RELATIVE, INT8_AGREEMENT


@dataclass(kw_only=True)
class Altered:
    """A session that answers as the module does, changed by `change`."""

    module: nn.Module
    change: object
    inputs: tuple[str, ...] = ("x",)
    outputs: tuple[str, ...] = ("y",)

    def run(self, arrays):
        with torch.no_grad():
            return (self.change(self.module(torch.from_numpy(arrays[0])).numpy()),)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return nn.Linear(8, 5)


@pytest.fixture(scope="module")
def program(module):
    return capture(module, (torch.randn(2, 8),), name="line")


INPUTS = (np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32),)
BATCHES = ((tuple(torch.from_numpy(x) for x in INPUTS), torch.zeros(200)),)


def test_relative_error_is_of_the_largest_value():
    assert relative_error(np.array([1.0, 10.5]), np.array([1.0, 10.0])) == pytest.approx(0.05)
    assert relative_error(np.zeros(3), np.zeros(3)) == 0.0


@pytest.mark.parametrize("found", [np.array([1.0, np.nan]), np.array([1.0, np.inf]), np.array([1.0])])
def test_what_cannot_match_is_infinitely_far(found):
    assert relative_error(found, np.array([1.0, 2.0])) == float("inf")
    assert snr_db(found, np.array([1.0, 2.0])) == float("-inf")


def test_snr_of_a_tenth_of_the_amplitude_is_20_db():
    signal = np.array([3.0, -4.0])
    assert snr_db(signal * 1.1, signal) == pytest.approx(20.0)
    assert snr_db(signal, signal) == 200.0


def test_agreement_counts_samples_and_pixels():
    wanted = np.eye(4)
    found = np.eye(4)
    found[0] = [0, 1, 0, 0]
    assert agreement(found, wanted) == 75.0
    maps = np.zeros((1, 2, 2, 2))
    maps[0, 1, 0, 0] = 1
    assert agreement(np.zeros_like(maps), maps) == 75.0
    assert agreement(np.zeros((2, 3)), np.zeros((3, 3))) == 0.0


@pytest.mark.parametrize(
    ("factor", "status"), [(1 + 0.5 * FLOAT_RELATIVE, "pass"), (1 + 2 * FLOAT_RELATIVE, "fail")]
)
def test_float_check_turns_at_the_tolerance(program, module, factor, status):
    check = check_float(program, Altered(module=module, change=lambda y: y * factor), INPUTS, subject="f")
    assert check.status == status
    assert check.limit == FLOAT_RELATIVE


def test_nan_in_a_file_fails(program, module):
    check = check_float(program, Altered(module=module, change=lambda y: y * np.nan), INPUTS, subject="f")
    assert check.status == "fail"


@pytest.mark.parametrize(("wrong", "status"), [(6, "pass"), (7, "fail")])
def test_agreement_check_turns_at_the_tolerance(program, module, wrong, status):
    with torch.no_grad():
        chosen = module(torch.from_numpy(INPUTS[0][:wrong])).numpy()

    def change(y):
        """Turn round the answers to the first samples, whatever batch they come in."""
        hit = np.isclose(y[:, None], chosen[None]).all(axis=2).any(axis=1)
        return np.where(hit[:, None], -y, y)

    session = Altered(module=module, change=change)
    noise, same = check_quantized(program, session, INPUTS, BATCHES, subject="f")
    assert same.value == 100 * (200 - wrong) / 200
    assert (same.status, same.limit) == (status, INT8_AGREEMENT)
    assert noise.unit == "dB"


def test_without_data_agreement_is_not_run(program, module):
    session = Altered(module=module, change=lambda y: y)
    noise, same = check_quantized(program, session, INPUTS, (), subject="f")
    assert (noise.status, same.status, same.value) == ("pass", "not run", None)


def test_every_nth_sample(program, module):
    session = Altered(module=module, change=lambda y: y)
    _, same = check_quantized(program, session, INPUTS, BATCHES, subject="f", every=7)
    assert same.detail == "29 samples"
