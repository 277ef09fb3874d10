"""Training with the channels innermost: the same numbers, whatever looks at the layout in between."""

import torch
from torch import nn

from toolchain.program.capture import capture, switch
from toolchain.train.student import channels_last


class Viewed(nn.Module):
    """A view of an activation that is larger than one pixel, and one that splits its channels."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=4)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Linear(8 * 6 * 6, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = x.view(x.shape[0], 2, 4, 8, 8).transpose(1, 2).reshape(x.shape)
        return self.last(self.second(x).view(x.shape[0], -1))


def test_outputs_and_gradients_are_the_same():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    program = capture(Viewed().eval(), (x,), name="viewed")
    plain, inner = switch(program, training=True), channels_last(switch(program, training=True))
    for module in (plain, inner):
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        module(x).square().sum().backward()
    torch.testing.assert_close(inner(x), plain(x), rtol=1e-4, atol=1e-5)
    grads = dict(plain.named_parameters())
    for name, parameter in inner.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name].grad, rtol=1e-3, atol=1e-4)


def test_activations_follow_the_kernels():
    program = capture(nn.Sequential(nn.Conv2d(3, 8, 3)).eval(), (torch.randn(2, 3, 8, 8),), name="one")
    output = channels_last(switch(program, training=False))(torch.randn(2, 3, 8, 8))
    assert output.is_contiguous(memory_format=torch.channels_last)
