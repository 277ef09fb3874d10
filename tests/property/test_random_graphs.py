"""Random graphs against the oracle: pruned at random equals the original with the removed elements zeroed."""

import pytest
import torch

from tests.networks import randomised
from tests.oracle import prunable, pruned
from tests.random_graphs import IMAGE, RandomNetwork
from toolchain.program.capture import capture
from toolchain.program.channels import analyse

KINDS = """
conv( conv/ deconv/ add( mul( cat( part( [ write: shuffle ChannelShuffle view batch-norm group-norm layer-norm
instance-norm prelu-norm scale( scalar( excite( one( max_pool2d avg_pool2d nearest( bilinear( pad flip( roll(
permutation( repeat2 each2 again( pixels( unpixels( glu( attention einsum( mlp( branches( place-gate(
interleave: unfold( patches( unpool( gram( mean( flat( hidden( head(
"""
QUICK, THOROUGH, CHUNK = 40, 2000, 100


def program_of(seed):
    network = RandomNetwork(seed)
    program = capture(randomised(network, seed), (torch.randn(2, *IMAGE).double(),), name=f"seed{seed}")
    return program, network.describe()


def check(seed):
    """Prune twice, each time compared at another batch size; the share of channels that could go at first."""
    program, steps = program_of(seed)
    share = prunable(program, analyse(program))
    for batch in (3, 1):
        program = pruned(program, seed=seed, batch=batch, note=steps)
    return share


def test_pruned_random_graphs_equal_their_masked_originals():
    shares = [check(seed) for seed in range(QUICK)]
    # Guards against an analysis that is right because it freezes everything; output layers are in the rest.
    assert sum(s[0] for s in shares) > 0.7 * sum(s[1] for s in shares)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(QUICK, QUICK + THOROUGH, CHUNK))
def test_pruned_random_graphs_equal_their_masked_originals_thoroughly(start):
    for seed in range(start, start + CHUNK):
        check(seed)


def test_the_generator_repeats_itself_and_draws_every_kind_of_step():
    assert RandomNetwork(7).describe() == RandomNetwork(7).describe()
    drawn_steps = " ".join(RandomNetwork(seed).describe() for seed in range(200))
    assert [kind for kind in KINDS.split() if f"={kind}" not in drawn_steps] == []
    assert any(len(RandomNetwork(seed).outputs) > 1 for seed in range(50))
