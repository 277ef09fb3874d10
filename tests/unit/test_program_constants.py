"""Constants that a network builds inside forward are computed once; what an activation touches is not."""

import torch
from torch import nn

from toolchain.program.capture import capture


def captured(module: nn.Module):
    """The graph's operators; the program computes what the module does, at another batch too."""
    program = capture(module.double().eval(), (torch.randn(3, 4, 6, dtype=torch.float64),), name="net")
    x = torch.randn(5, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(program.module(x), module(x), rtol=0, atol=0)
    return [str(n.target) for n in program.module.graph.nodes if n.op == "call_function"]


def test_a_mask_written_piece_by_piece_is_a_constant():
    class Windows(nn.Module):
        def forward(self, x):
            mask = x.new_zeros((4, 6))
            mask[:2, :3] = 1
            mask[2:, 3:] = 2
            return x.masked_fill(mask.unsqueeze(0) != 0, -1.0)

    assert len(captured(Windows())) == 1


def test_a_constant_that_is_read_before_it_is_written_keeps_its_order():
    class Early(nn.Module):
        def forward(self, x):
            offset = x.new_ones((4, 6))
            y = x + offset
            offset[0] = 5
            return y * offset

    captured(Early())


def test_a_new_tensor_that_takes_an_activation_is_no_constant():
    class Written(nn.Module):
        def forward(self, x):
            room = x.new_zeros((4, 6))
            room[1:] = x.amax(dim=0)[1:]
            return x + room

    assert any("new_zeros" in name for name in captured(Written()))


def test_a_new_tensor_of_the_batch_is_no_constant():
    class Batched(nn.Module):
        def forward(self, x):
            return torch.cat([x, x.new_ones((x.shape[0], 4, 1))], dim=2)

    assert any("new_ones" in name for name in captured(Batched()))
