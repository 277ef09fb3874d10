"""Model files: every kind opens exactly, every bad one is refused with a clear line, nothing foreign runs."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from toolchain.errors import InputError
from toolchain.load import load
from toolchain.program.capture import switch
from toolchain.train.metric import as_tuple

SHAPE = ((2, 3, 8, 8),)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + torch.relu(self.branch(x))
        return self.head(nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(x, 2), 1).flatten(1))


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (Path(self.marker),))


def factory():
    return plain()


def plain():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    net[1].running_mean.uniform_(-1, 1)
    return net.eval()


def agrees(program, module, batch=5):
    x = torch.randn(batch, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            as_tuple(switch(program, training=False)(x))[0], module(x), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_is_exact_and_keeps_parameters(tmp_path, how):
    torch.manual_seed(1)
    module = Residual().eval()
    script = torch.jit.script(module) if how == "script" else torch.jit.trace(module, torch.randn(2, 3, 8, 8))
    script.save(tmp_path / "net.bin")
    program = load(tmp_path / "net.bin", input_shape=((1, 3, 8, 8),))
    agrees(program, module)
    assert {n for n, _ in program.module.named_parameters()} == {n for n, _ in module.named_parameters()}
    assert program.inputs[0].shape == (None, 3, 8, 8)


def test_pickled_network_of_torch_classes(tmp_path):
    torch.save(plain(), tmp_path / "net")
    agrees(load(tmp_path / "net", input_shape=SHAPE), plain())


def test_old_pickled_network_needs_trust(tmp_path):
    torch.save(plain(), tmp_path / "net", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="cannot be unpickled safely"):
        load(tmp_path / "net", input_shape=SHAPE)
    agrees(load(tmp_path / "net", input_shape=SHAPE, trust_pickle=True), plain())


@pytest.mark.parametrize("content", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s}])
def test_state_dict_with_architecture(tmp_path, content):
    torch.save(content(plain().state_dict()), tmp_path / "w.pth")
    agrees(load(tmp_path / "w.pth", input_shape=SHAPE, arch=f"{__name__}:factory"), plain())


def test_exported_archive(tmp_path):
    x = torch.randn(2, 3, 8, 8)
    torch.export.save(
        torch.export.export(plain(), (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},)), tmp_path / "n.pt2"
    )
    agrees(load(tmp_path / "n.pt2"), plain())
    with pytest.raises(InputError, match="input-shape says"):
        load(tmp_path / "n.pt2", input_shape=((1, 3, 9, 9),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_foreign_pickle_never_runs_unless_trusted(tmp_path, zipped):
    marker = tmp_path / "ran"
    torch.save({"w": Evil(marker)}, tmp_path / "e.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"pathlib.*touch|getattr|pathlib") as caught:
        load(tmp_path / "e.pt", input_shape=SHAPE)
    assert not marker.exists()
    assert "--trust-pickle" in caught.value.hint
    with pytest.raises(InputError):
        load(tmp_path / "e.pt", input_shape=SHAPE, trust_pickle=True)
    assert marker.exists()


def repacked(source, target, change):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def test_an_exported_archive_with_code_never_runs(tmp_path):
    x = torch.randn(2, 3, 8, 8)
    torch.export.save(torch.export.export(plain(), (x,)), tmp_path / "good.pt2")
    marker = tmp_path / "ran"
    torch.save((Evil(marker),), tmp_path / "evil.pt")
    evil = (tmp_path / "evil.pt").read_bytes()
    repacked(tmp_path / "good.pt2", tmp_path / "bad.pt2", lambda n, c: evil if "sample_inputs" in n else c)
    with pytest.raises(InputError, match="foreign code"):
        load(tmp_path / "bad.pt2")
    repacked(
        tmp_path / "good.pt2",
        tmp_path / "call.pt2",
        lambda n, c: c.replace(b"torch.ops.aten.relu.default", b"torch.os.system"),
    )
    with pytest.raises(InputError, match=r"calls 'torch\.os\.system'"):
        load(tmp_path / "call.pt2")
    assert not marker.exists()


def test_code_in_a_size_expression_is_refused(tmp_path):
    x = torch.randn(2, 3, 8, 8)
    torch.export.save(
        torch.export.export(plain(), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)),
        tmp_path / "g.pt2",
    )

    def change(name, content):
        if not name.endswith(".json") or b"expr_str" not in content:
            return content
        tree = json.loads(content)
        poison(tree)
        return json.dumps(tree).encode()

    def poison(value):
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            poison(item)
        if isinstance(value, dict) and "expr_str" in value:
            value["expr_str"] = "__import__('os').getcwd()"

    repacked(tmp_path / "g.pt2", tmp_path / "b.pt2", change)
    with pytest.raises(InputError, match="size expression"):
        load(tmp_path / "b.pt2")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0" + b"0" * 99, "JPEG"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\x08\x09\x12\x07pytorch" + b"\0" * 50, "ONNX"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 50, "TFLite"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"PK\x03\x04" + b"\0" * 60, "truncated"),
        (b"\x80\x02\x8a\nl\xfc", "damaged"),
    ],
)
def test_other_files_are_named(tmp_path, content, says):
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        load(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_missing_directory_and_truncated(tmp_path):
    with pytest.raises(InputError, match="not found"):
        load(tmp_path / "none.pt2")
    with pytest.raises(InputError, match="is a directory"):
        load(tmp_path)
    package = tmp_path / "n.mlpackage"
    package.mkdir()
    (package / "Manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is a Core ML package") as caught:
        load(package)
    assert "Core ML runs on macOS and iOS only" in caught.value.hint
    torch.save(plain(), tmp_path / "n.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "n.pt").read_bytes()[:2000])
    with pytest.raises(InputError, match="truncated"):
        load(tmp_path / "cut.pt", input_shape=SHAPE)


def test_state_dict_problems_name_the_keys(tmp_path):
    state = plain().state_dict()
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"state dict .*0\.weight, 0\.bias") as caught:
        load(tmp_path / "w.pt", input_shape=SHAPE)
    assert "--arch" in caught.value.hint
    for arch, says in (
        ("nowhere_at_all:f", "cannot import"),
        (f"{__name__}:SHAPE", "non-callable"),
        (f"{__name__}:none", "has no 'none'"),
        ("plain", "is not package"),
    ):
        with pytest.raises(InputError, match=says):
            load(tmp_path / "w.pt", input_shape=SHAPE, arch=arch)
    del state["4.bias"]
    state["more"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(5, 3, 3, 3)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"missing: 4\.bias; unexpected: more; wrong shape: 0\.weight is \[5"
    ):
        load(tmp_path / "w.pt", input_shape=SHAPE, arch=f"{__name__}:factory")


@pytest.mark.parametrize(("value", "says"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_weights_that_are_not_finite(tmp_path, value, says):
    net = plain()
    with torch.no_grad():
        net[4].weight[0, 0] = value
    torch.save(net, tmp_path / "n.pt")
    with pytest.raises(InputError, match=rf"{says} \(in '4\.weight'\)"):
        load(tmp_path / "n.pt", input_shape=SHAPE)


def test_input_shape_missing_or_wrong(tmp_path):
    torch.save(plain(), tmp_path / "n.pt")
    with pytest.raises(InputError, match="what its inputs look like"):
        load(tmp_path / "n.pt")
    with pytest.raises(InputError, match=r"fails on an input of shape \[2, 3, 9, 9\]"):
        load(tmp_path / "n.pt", input_shape=((2, 3, 9, 9),))


def test_no_parameters(tmp_path):
    torch.save(nn.Sequential(nn.ReLU()), tmp_path / "n.pt")
    with pytest.raises(InputError, match="no floating-point parameter"):
        load(tmp_path / "n.pt", input_shape=SHAPE)


def test_sizes_that_multiply_the_batch_are_no_code(tmp_path):
    """A batch folded into other dimensions (attention) is `Mul(Integer(8), Symbol(...))` in the file."""

    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x):
            return self.linear(x.reshape(-1, 6)).reshape(x.shape)

    x = torch.randn(2, 8, 6)
    exported = torch.export.export(Folded(), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(exported, tmp_path / "f.pt2")
    with zipfile.ZipFile(tmp_path / "f.pt2") as archive:
        texts = [archive.read(n).decode() for n in archive.namelist() if n.endswith(".json")]
    assert any("Mul(Integer(8)" in text for text in texts)
    assert load(tmp_path / "f.pt2").inputs[0].shape == (None, 8, 6)
