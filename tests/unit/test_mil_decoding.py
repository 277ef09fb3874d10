"""Compressed weights: the interpreter's decoders give the bits that coremltools' own give."""

import numpy as np
import pytest
import torch
from torch import nn

ct = pytest.importorskip("coremltools")

from coremltools.converters.mil.frontend.milproto.load import load  # noqa: E402
from coremltools.converters.mil.mil import Builder as mb  # noqa: E402, N813
from coremltools.optimize import coreml as cto  # noqa: E402

from toolchain.coreml_package import save  # noqa: E402
from toolchain.errors import ConversionError  # noqa: E402
from toolchain.foreign import quiet  # noqa: E402
from toolchain.verify.mil.execution import interpreter  # noqa: E402
from toolchain.verify.mil.reading import unpacked  # noqa: E402

SHAPES = {"conv": (24, 16, 3, 3), "linear": (32, 24)}


def quantized(**options):
    return lambda model: cto.linear_quantize_weights(model, configured(cto.OpLinearQuantizerConfig, options))


def palettized(**options):
    return lambda model: cto.palettize_weights(model, configured(cto.OpPalettizerConfig, options))


def sparse(**options):
    return lambda model: cto.prune_weights(model, configured(cto.OpMagnitudePrunerConfig, options))


def configured(kind, options):
    return cto.OptimizationConfig(global_config=kind(weight_threshold=64, **options))


def both(first, second):
    """Two compressions, one on what the other left."""

    def change(model):
        model = first(model)
        kind, options = second
        settings = configured(kind, options)
        if kind is cto.OpPalettizerConfig:
            return cto.palettize_weights(model, settings, joint_compression=True)
        return cto.linear_quantize_weights(model, settings, joint_compression=True)

    return change


COMPRESSIONS = {
    "int8 per channel": ("iOS16", quantized(mode="linear_symmetric", granularity="per_channel")),
    "int8 per tensor": ("iOS16", quantized(mode="linear_symmetric", granularity="per_tensor")),
    "uint8 with zero points": ("iOS16", quantized(mode="linear", dtype="uint8")),
    "int8 in blocks": ("iOS18", quantized(mode="linear_symmetric", granularity="per_block", block_size=8)),
    "int4 in blocks": ("iOS18", quantized(dtype="int4", granularity="per_block", block_size=4)),
    "uint4 with zero points": ("iOS18", quantized(mode="linear", dtype="uint4")),
    **{f"{n} bits": ("iOS16", palettized(mode="uniform", nbits=n)) for n in (1, 2, 4, 6, 8)},
    "3 bits": ("iOS18", palettized(mode="uniform", nbits=3)),
    "4 bits in groups": (
        "iOS18",
        palettized(mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=8),
    ),
    "pairs": ("iOS18", palettized(mode="kmeans", nbits=4, cluster_dim=2)),
    "half zeros": ("iOS16", sparse(target_sparsity=0.5)),
    "half zeros, new form": ("iOS18", sparse(target_sparsity=0.5)),
    "zeros and int8": (
        "iOS18",
        both(sparse(target_sparsity=0.4), (cto.OpLinearQuantizerConfig, {"mode": "linear_symmetric"})),
    ),
    "zeros and palette": (
        "iOS18",
        both(sparse(target_sparsity=0.4), (cto.OpPalettizerConfig, {"mode": "uniform", "nbits": 4})),
    ),
    "palette of int8": (
        "iOS18",
        both(
            palettized(mode="uniform", nbits=4),
            (cto.OpLinearQuantizerConfig, {"mode": "linear_symmetric", "granularity": "per_tensor"}),
        ),
    ),
}


def weights():
    draw = np.random.default_rng(0)
    return {name: draw.normal(0, 0.2, shape).astype(np.float32) for name, shape in SHAPES.items()}


def two_layers(target):
    """A convolution and a linear layer, in fp16."""
    numbers = weights()

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 16, 5, 5))], opset_version=target)
    def program(x):
        x = mb.conv(x=x, weight=numbers["conv"], pad_type="valid")
        x = mb.reduce_mean(x=mb.relu(x=x), axes=[2, 3], keep_dims=False)
        return mb.linear(x=x, weight=numbers["linear"], name="y")

    return ct.convert(program, minimum_deployment_target=target, skip_model_load=True)


@pytest.fixture(scope="module")
def plain():
    """The uncompressed model for each system."""
    with quiet():
        return {name: two_layers(getattr(ct.target, name)) for name in ("iOS16", "iOS18")}


@pytest.fixture(scope="module", params=COMPRESSIONS)
def compressed(request, plain, tmp_path_factory):
    """The package, compressed."""
    if request.param == "pairs":
        pytest.importorskip("sklearn")
    system, change = COMPRESSIONS[request.param]
    path = tmp_path_factory.mktemp("compressed") / "model.mlpackage"
    with quiet():
        save(change(plain[system]), path)
    return path


def decoded_by_coremltools(path):
    """The weights in order, by coremltools' reader and its own decoders."""
    with quiet():
        spec = ct.utils.load_spec(str(path))
        folder = path / "Data" / "com.apple.CoreML" / "weights"
        function = load(spec, spec.specificationVersion, str(folder)).functions["main"]
    layers = [op for op in function.operations if op.op_type in SHAPES]
    found = [op.inputs["weight"] for op in layers]
    assert all(value.op.op_type.startswith("constexpr_") for value in found), "nothing was compressed"
    return [decoded(value.op) for value in found]


def decoded(operation):
    """By its own decoder, which does not look behind a table that is compressed itself."""
    if operation.op_type == "constexpr_lut_to_dense" and operation.lut.val is None:
        return operation.decompress(operation.indices.val, decoded(operation.lut.op), None)
    return operation.materialized_val_inference()


def test_weights_are_coremltools_own_bit_for_bit(compressed):
    found = [w.numpy() for w in interpreter(compressed).weights()]
    wanted = decoded_by_coremltools(compressed)
    assert [w.shape for w in found] == list(SHAPES.values())
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype == np.float16
        assert np.array_equal(ours.view(np.uint16), np.ascontiguousarray(theirs).view(np.uint16))


def test_the_network_computes_with_the_decoded_weights(compressed):
    first, second = (torch.from_numpy(np.array(w, np.float32)) for w in decoded_by_coremltools(compressed))
    x = torch.randn(3, 16, 5, 5, generator=torch.Generator().manual_seed(0))
    wanted = nn.functional.conv2d(x.half().float(), first).relu().mean((2, 3)) @ second.T
    (found,) = interpreter(compressed).run((x.numpy(),))
    assert np.abs(found - wanted.numpy()).max() < 4e-3 * float(wanted.abs().max())


def test_small_numbers_unpack_from_the_lowest_bit_on():
    """The example of `constexpr_lut_to_dense`: 2 bits, five elements in two bytes."""
    packed = np.array([0b01101100, 0b11], np.uint8)
    assert unpacked(packed, 5, 2).tolist() == [0b00, 0b11, 0b10, 0b01, 0b11]
    assert unpacked(np.array([0xF8], np.uint8), 2, 4, signed=True).tolist() == [-8, -1]
    six = np.array([0b10000001, 0b01000000, 0b00100000], np.uint8)
    assert unpacked(six, 4, 6).tolist() == [0b000001, 0b000010, 0b000100, 0b001000]


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_a_damaged_weight_file_is_one_clear_line(plain, tmp_path, damage):
    path = tmp_path / "model.mlpackage"
    with quiet():
        save(plain["iOS16"], path)
    file = next(path.rglob("weight.bin"))
    data = file.read_bytes()
    file.write_bytes(data[:200] if damage == "cut off" else data[:64] + bytes(64) + data[128:])
    with pytest.raises(ConversionError, match="weight file is damaged"):
        interpreter(path)
