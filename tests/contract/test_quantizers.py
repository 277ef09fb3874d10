"""Every quantizer, by registry: integers where it says so, close to the program, metadata and names kept."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import registry
from toolchain.artifacts import content_hash
from toolchain.errors import InputError
from toolchain.program.capture import capture
from toolchain.verify.parity import check_coreml, check_quantized

QUANTIZERS = registry.names("toolchain.quantize")
METADATA = {"edgefit.classes": '["a", "b"]'}


def _network() -> nn.Module:
    """Convolutions that see structure, so that outputs differ between samples; batch norms calibrated."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 2),
    )
    network.train()
    for _ in range(20):
        network(_samples(64, seed=9))
    return network.eval()


def _samples(count: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(count, 3, 1, 1, generator=generator) * 2
    return torch.randn(count, 3, 16, 16, generator=generator) * scale


@pytest.fixture(scope="module")
def program():
    return capture(_network(), (_samples(2, seed=1),), name="small")


@pytest.fixture(scope="module", params=QUANTIZERS)
def made(request, program, tmp_path_factory):
    """(quantizer, format, float artifact, quantized artifact)."""
    quantizer = registry.find("toolchain.quantize", "QUANTIZER", request.param)
    form = registry.find("toolchain.export", "FORMAT", quantizer.format)
    for package in form.packages:
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp(request.param)
    source = form.write(program, folder / f"float{form.suffix}", METADATA)
    samples = [(_samples(128, seed=2).numpy(),)] if quantizer.needs_data else None
    result = quantizer.quantize(source, folder / f"small{form.suffix}", samples)
    return quantizer, form, source, result


def test_artifact_says_what_it_is(made):
    quantizer, form, source, result = made
    assert (result.format, result.precision) == (form.name, quantizer.precision)
    assert result.runtime == source.runtime
    assert result.path.exists()


def test_source_is_untouched_and_nothing_is_left(made):
    _, _, source, result = made
    assert {p.name for p in source.path.parent.iterdir()} == {source.path.name, result.path.name}
    assert content_hash(source.path) == source.sha256


def test_metadata_is_kept(made):
    _, form, _, result = made
    read = importlib.import_module(f"toolchain.export.{form.name}").read_metadata(result.path)
    assert {key: read.get(key) for key in METADATA} == METADATA


def test_close_to_the_program_but_not_equal(made, program):
    _, form, _, result = made
    if form.open is None:
        assert [c.status for c in check_coreml(result, program, subject="q")] == ["pass", "pass", "not run"]
        return
    session = form.open(result.path)
    assert session.inputs == tuple(spec.name for spec in program.inputs)
    inputs = (_samples(64, seed=3).numpy(),)
    noise, _ = check_quantized(program, session, inputs, (), subject="q")
    assert noise.status == "pass", noise
    assert noise.value < 60, "int8 cannot be that exact: was anything quantized?"
    assert session.run(inputs)[0].dtype == np.float32


def test_without_samples_is_refused(made, tmp_path):
    quantizer, form, source, _ = made
    if not quantizer.needs_data:
        pytest.skip("needs no samples")
    with pytest.raises(InputError, match="calibration samples"):
        quantizer.quantize(source, tmp_path / f"x{form.suffix}", None)
    assert list(tmp_path.iterdir()) == []


def test_onnx_convolutions_run_in_integers(made, tmp_path):
    """What ONNX Runtime executes after its own fusion: no convolution or product stays float."""
    quantizer, _, _, result = made
    if quantizer.format != "onnx":
        pytest.skip("of ONNX only")
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(result.path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2
    assert not {"Conv", "FusedConv", "MatMul", "Gemm", "Relu"} & set(kinds), kinds
