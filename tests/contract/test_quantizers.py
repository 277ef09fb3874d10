"""Every quantizer, by registry: integers where it says so, close to the program, metadata and names kept."""

import numpy as np
import pytest
import torch
from torch import nn

from toolchain import registry
from toolchain.artifacts import content_hash
from toolchain.assembly import weights_of
from toolchain.errors import ConversionError, InputError
from toolchain.program.capture import capture
from toolchain.program.lower import lower
from toolchain.verify.coreml import check_coreml
from toolchain.verify.parity import check_quantized

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
    result = quantizer.quantize(source, folder / f"small{form.suffix}", samples, {})
    return quantizer, form, source, result


def test_artifact_says_what_it_is(made):
    quantizer, form, source, result = made
    assert (result.format, result.precision) == (form.name, quantizer.precision)
    assert result.runtime == source.runtime == quantizer.runtime
    assert result.path.exists()


def test_source_is_untouched_and_nothing_is_left(made):
    _, _, source, result = made
    assert {p.name for p in source.path.parent.iterdir()} == {source.path.name, result.path.name}
    assert content_hash(source.path) == source.sha256


def test_metadata_is_kept(made):
    _, form, _, result = made
    read = form.read(result.path)
    assert {key: read.get(key) for key in METADATA} == METADATA


def test_close_to_the_program_but_not_equal(made, program):
    _, form, _, result = made
    if form.open is None:
        checks = check_coreml(result, program, (_samples(16, seed=3).numpy(),), subject="q")
        assert [c.status for c in checks] == ["pass", "pass", "pass", "not run"], checks
        assert checks[2].value < 70, "int8 cannot be that exact: was anything quantized?"
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
        quantizer.quantize(source, tmp_path / f"x{form.suffix}", None, {})
    assert list(tmp_path.iterdir()) == []


def test_onnx_convolutions_run_in_integers(made, tmp_path):
    """What ONNX Runtime executes after its own fusion: no convolution or product stays float."""
    quantizer, _, _, result = made
    if quantizer.format != "onnx":
        pytest.skip("of ONNX only")
    kinds = _fused_onnx(result.path, tmp_path)
    assert kinds.count("QLinearConv") == 2
    assert not {"Conv", "FusedConv", "MatMul", "Gemm", "Relu"} & set(kinds), kinds


KEPT = "3.weight"


@pytest.fixture(scope="module")
def mixed(made, program, tmp_path_factory):
    """(format, the file with its second convolution in float)."""
    quantizer, form, _, _ = made
    folder = tmp_path_factory.mktemp("mixed")
    source = form.write(lower(program), folder / f"float{form.suffix}", METADATA)
    samples = [(_samples(128, seed=2).numpy(),)] if quantizer.needs_data else None
    weights = weights_of(program, [KEPT, "dropped.weight"])
    assert list(weights) == [KEPT], "what the program has no more is passed over"
    return form, quantizer.quantize(source, folder / f"mixed{form.suffix}", samples, weights)


def test_a_layer_in_float_keeps_its_weights(made, mixed, program):
    """As they were exported, the batch norm merged; the other convolution is in integers all the same."""
    form, result = mixed
    wanted, other = (weights_of(program, [name])[name] for name in (KEPT, "0.weight"))
    assert _holds(form.name, result, wanted)
    assert form.name == "coreml" or not _holds(form.name, result, other)  # too small for Core ML
    assert not _holds(form.name, made[3], wanted)


def _holds(format_name, file, wanted):
    """Whether the file has these numbers in the precision of the format's float files."""
    kind = np.float16 if format_name == "coreml" else np.float32
    if format_name == "onnx":
        import onnx
        from onnx import numpy_helper

        stored = [numpy_helper.to_array(entry) for entry in onnx.load(file.path).graph.initializer]
    elif format_name == "tflite":
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromPackedBuf(file.path.read_bytes(), 0)
        sizes = [buffer.data for buffer in model.buffers if buffer.data is not None]
        stored = [np.asarray(d, np.uint8).view(np.float32) for d in sizes if len(d) % 4 == 0]
    else:
        import coremltools as ct
        from coremltools.optimize import coreml as cto

        model = ct.models.MLModel(str(file.path), skip_model_load=True)
        stored = [entry.val for entry in cto.get_weights_metadata(model, weight_threshold=10).values()]
    numbers = np.sort(wanted.astype(kind), axis=None)
    same = [s for s in stored if s.dtype == kind and s.size == wanted.size]
    return any(np.array_equal(np.sort(s, axis=None), numbers) for s in same)


def test_more_layers_in_float_come_nearer(made, mixed, program):
    """To the program's own answers, where the format can be run here."""
    form, result = mixed
    if form.open is None:
        pytest.skip(form.closed_because)
    inputs = (_samples(64, seed=3).numpy(),)
    noise = [
        check_quantized(program, form.open(file.path), inputs, (), subject="q")[0]
        for file in (made[3], result)
    ]
    assert noise[1].value > noise[0].value - 0.5


def test_a_layer_that_is_not_in_the_file_is_refused(made, tmp_path):
    quantizer, form, source, _ = made
    samples = [(_samples(128, seed=2).numpy(),)] if quantizer.needs_data else None
    foreign = {"absent.weight": np.random.default_rng(0).normal(size=(32, 16, 3, 3)).astype(np.float32)}
    with pytest.raises(ConversionError, match="layer 'absent'"):
        quantizer.quantize(source, tmp_path / f"x{form.suffix}", samples, foreign)
    assert list(tmp_path.iterdir()) == []


class _Grouped(nn.Module):
    """The TFLite converter takes its transposed convolution apart, ONNX Runtime cannot quantize it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(24, 24, 2, stride=2, groups=2)
        self.last = nn.Conv2d(24, 2, 3, padding=1)

    def forward(self, x):
        return self.last(torch.relu(self.up(torch.relu(self.first(x))))).mean((2, 3))


@pytest.fixture(scope="module")
def grouped(made, tmp_path_factory):
    """(program, quantizer, format, float file, samples)."""
    quantizer, form, _, _ = made
    program = capture(_Grouped().eval(), (_samples(2, seed=1),), name="grouped")
    source = form.write(lower(program), tmp_path_factory.mktemp("grouped") / f"g{form.suffix}", {})
    return program, quantizer, form, source, [(_samples(64, seed=2).numpy(),)]


def test_a_transposed_convolution_in_groups_is_quantized_or_left(grouped, tmp_path):
    program, quantizer, form, source, samples = grouped
    result = quantizer.quantize(source, tmp_path / f"q{form.suffix}", samples, {})
    if form.open is not None:
        found = check_quantized(
            program, form.open(result.path), (_samples(32, seed=3).numpy(),), (), subject="q"
        )
        assert found[0].status == "pass", found[0]
    assert result.size_bytes < source.size_bytes


def test_a_layer_taken_apart_is_refused_by_name(grouped, tmp_path):
    program, quantizer, form, source, samples = grouped
    if form.name != "tflite":
        pytest.skip("whole in this format")
    with pytest.raises(ConversionError, match="layer 'up'"):
        quantizer.quantize(source, tmp_path / "q.tflite", samples, weights_of(program, ["up.weight"]))


class _Attending(nn.Module):
    """A transformer's block: normalization, attention, normalization, two layers; and one answer a token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down, self.last = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 3)

    def forward(self, x):
        query, key, value = (
            self.qkv(self.norms[0](x)).unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4).unbind(0)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        x = x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))
        return self.last(self.norms[2](x))


@pytest.fixture(scope="module")
def attending(made, tmp_path_factory):
    """(program, format, quantized file, inputs): rows of very different size, as tokens are."""
    quantizer, form, _, _ = made
    if form.open is None:
        pytest.skip(form.closed_because)
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(96, 48, 32, generator=generator) * torch.logspace(-1, 1, 48)[:, None]
    program = capture(_Attending().eval(), (rows[:2],), name="attending")
    folder = tmp_path_factory.mktemp("attending")
    source = form.write(lower(program), folder / f"a{form.suffix}", {})
    result = quantizer.quantize(source, folder / f"q{form.suffix}", [(rows[:64].numpy(),)], {})
    return program, form, result, (rows[64:].numpy(),)


def test_a_transformer_keeps_its_answers(attending):
    """35.8 dB; 9.2 (ONNX) and -0.5 (TFLite) with its normalizations, softmax and sums in integers."""
    program, form, result, inputs = attending
    noise, _ = check_quantized(program, form.open(result.path), inputs, (), subject="q")
    assert 30 < noise.value < 60, noise


def test_a_transformers_products_with_weights_are_in_integers(attending, tmp_path):
    _, form, result, _ = attending
    kinds = (_fused_onnx if form.name == "onnx" else _types_of_tflite)(result.path, tmp_path)
    if form.name == "onnx":
        assert sum(kind.startswith(("MatMulInteger", "QLinearMatMul", "QGemm")) for kind in kinds) >= 7, kinds
        assert not [kind for kind in kinds if kind in ("MatMul", "Gemm", "QLinearSoftmax", "QLinearAdd")], (
            kinds
        )
        return
    assert {t for kind, t in kinds if kind == "FULLY_CONNECTED"} == {"INT8"}
    in_float = {"RSQRT", "SOFTMAX", "GELU", "BATCH_MATMUL", "SQUARED_DIFFERENCE", "ADD", "MEAN"}
    assert {t for kind, t in kinds if kind in in_float} == {"FLOAT32"}


def _fused_onnx(path, folder):
    """Kinds of operators after ONNX Runtime's own fusion."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "fused.onnx").graph.node]


def _types_of_tflite(path, _folder):
    """(kind, type of the first input) of every operator."""
    from ai_edge_litert import schema_py_generated as schema

    def names(numbers):
        return {number: name for name, number in vars(numbers).items() if not name.startswith("_")}

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph, kinds, types = model.subgraphs[0], names(schema.BuiltinOperator), names(schema.TensorType)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [(kinds[codes[o.opcodeIndex]], types[graph.tensors[o.inputs[0]].type]) for o in graph.operators]


def test_no_activation_of_the_samples_is_cut_off(tmp_path):
    """One sample is far larger than the others, and so is its answer."""
    for package in ("litert_torch", "ai_edge_quantizer"):
        pytest.importorskip(package)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    samples = torch.randn(32, 3, 16, 16)
    samples[5] *= 40
    program = capture(network.eval(), (samples[:2],), name="wide")
    for name, suffix in (("tflite-int8", ".tflite"), ("onnx-int8", ".onnx")):
        quantizer = registry.find("toolchain.quantize", "QUANTIZER", name)
        form = registry.find("toolchain.export", "FORMAT", quantizer.format)
        source = form.write(lower(program), tmp_path / f"float{suffix}", {})
        result = quantizer.quantize(source, tmp_path / f"q{suffix}", [(samples.numpy(),)], {})
        largest = (samples[5:6].numpy(),)
        (wanted,), (found,) = (form.open(f.path).run(largest) for f in (source, result))
        assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max(), name
