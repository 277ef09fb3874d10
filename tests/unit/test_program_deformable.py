"""Deformable convolution: an operator of torchvision's, known by its schema alone."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from tests.networks import randomised
from tests.oracle import pruned
from tests.unit.test_program_traps import conv, net
from toolchain.program.capture import capture
from toolchain.program.channels import analyse


def deformable(x, weight, offset, mask, bias, *numbers):
    """Bilinear reading at shifted places, kernel element by kernel element, then a matrix product."""
    (_, _, ph, pw, _, _, _, _, use_mask) = numbers
    n, _, h, w = x.shape
    rows, columns = weight.shape[2:]
    ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    result = bias.view(1, -1, 1, 1).expand(n, -1, h, w)
    for k in range(rows * columns):
        y = ys + k // columns - ph + offset[:, 2 * k]
        z = xs + k % columns - pw + offset[:, 2 * k + 1]
        grid = torch.stack([2 * z / (w - 1) - 1, 2 * y / (h - 1) - 1], -1)
        read = F.grid_sample(x, grid, align_corners=True)
        read = read * mask[:, k : k + 1] if use_mask else read
        result = result + torch.einsum("nchw,oc->nohw", read, weight[:, :, k // columns, k % columns])
    return result


@pytest.fixture(scope="module")
def deform_conv2d():
    """torchvision's operator by its schema, with a kernel of this file's where torchvision is not there."""
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        yield torch.ops.torchvision.deform_conv2d
        return
    sizes = ", ".join(f"SymInt {n}_{a}" for n in ("stride", "pad", "dilation") for a in "hw")
    tensors = ", ".join(f"Tensor {n}" for n in ("input", "weight", "offset", "mask", "bias"))
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(
        f"deform_conv2d({tensors}, {sizes}, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor"
    )
    library.impl("deform_conv2d", deformable, "CPU")
    torch.library.register_fake(
        "torchvision::deform_conv2d",
        lambda x, w, *_: x.new_empty(x.shape[0], w.shape[0], *x.shape[2:]),
        lib=library,
    )
    yield torch.ops.torchvision.deform_conv2d
    library._destroy()


def test_a_deformable_convolution_is_a_convolution_that_keeps_its_places(deform_conv2d):
    def body(m, x, i):
        mask = torch.sigmoid(m.mask(x))
        return deform_conv2d(x, m.c.weight, m.offset(x), mask, m.c.bias, 1, 1, 1, 1, 1, 1, 1, 1, True)

    case = net(body, c=conv(12, 12), offset=conv(12, 18), mask=conv(12, 9))
    program = capture(randomised(case()), (torch.randn(2, 3, 8, 8).double(),), name="deformable")
    channels = analyse(program)
    assert {g.name: g.size for g in channels.groups} == {"stem": 12, "c": 12, "last": 6}
    reasons = {f.parameter: f.reason for f in channels.frozen if f.dim == 0}
    assert all("places to read at" in reasons[f"{name}.weight"] for name in ("offset", "mask"))
    for seed in range(2):
        pruned(program, seed=seed, batch=3)
