"""Operators of ML Programs one by one: against coremltools' evaluation of constants, against torch, by hand.

coremltools evaluates many operators on constants in numpy while it builds a program: that is written by
others, and knows nothing of torch.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from toolchain.verify.mil import resizing
from toolchain.verify.mil.execution import COMPUTED, MOVED, Interpreter, compute
from toolchain.verify.mil.reading import MlProgram, Name, Operation, Type
from toolchain.verify.mil.refusal import Refused

DRAW = np.random.default_rng(0)
IMAGE = DRAW.normal(size=(1, 4, 6, 5)).astype(np.float32)
OTHER = DRAW.normal(size=(1, 4, 6, 5)).astype(np.float32)
INSIDE = np.tanh(IMAGE) * 0.99
POSITIVE = np.abs(IMAGE) + 0.1
INTEGERS = DRAW.integers(-5, 9, size=(2, 3, 4)).astype(np.int32)
TRUTH = IMAGE > 0
F32 = np.float32
POINTS = DRAW.uniform(-1.2, 1.2, size=(1, 3, 2, 2)).astype(np.float32)
CHANNELS = np.array([0.1, -0.2, 0.3, 0.5], np.float32)

EVALUATED = [
    *((name, {"x": IMAGE}) for name in ("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor")),
    *(
        (name, {"x": IMAGE})
        for name in ("relu", "relu6", "round", "sigmoid", "sign", "sin", "sinh", "softplus")
    ),
    *((name, {"x": IMAGE}) for name in ("softsign", "square", "tan", "tanh", "identity")),
    *((name, {"x": INSIDE}) for name in ("acos", "asin", "atanh")),
    *((name, {"x": POSITIVE}) for name in ("sqrt", "log", "rsqrt", "inverse")),
    ("log", {"x": POSITIVE, "epsilon": F32(0.5)}),
    ("rsqrt", {"x": POSITIVE, "epsilon": F32(0.5)}),
    ("inverse", {"x": POSITIVE, "epsilon": F32(0.5)}),
    ("round", {"x": np.array([-1.5, -0.5, 0.5, 1.5, 2.5], F32)}),
    *((name, {"x": IMAGE, "y": OTHER}) for name in ("add", "sub", "mul", "real_div", "maximum", "minimum")),
    *((name, {"x": IMAGE, "y": OTHER}) for name in ("mod", "floor_div")),
    *((name, {"x": INTEGERS, "y": np.int32(-3)}) for name in ("mod", "floor_div", "add", "mul", "maximum")),
    ("pow", {"x": POSITIVE, "y": OTHER}),
    ("add", {"x": IMAGE, "y": CHANNELS.reshape(4, 1, 1)}),
    *(
        (name, {"x": INTEGERS, "y": INTEGERS[:, ::-1].copy()})
        for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
    ),
    *((name, {"x": TRUTH, "y": OTHER > 0}) for name in ("logical_and", "logical_or", "logical_xor")),
    ("logical_not", {"x": TRUTH}),
    ("clip", {"x": IMAGE, "alpha": F32(-0.3), "beta": F32(0.7)}),
    ("threshold", {"x": IMAGE, "alpha": F32(0.2)}),
    ("clamped_relu", {"x": IMAGE, "alpha": F32(0.1), "beta": F32(0.8)}),
    ("elu", {"x": IMAGE, "alpha": F32(0.7)}),
    ("leaky_relu", {"x": IMAGE, "alpha": F32(0.2)}),
    ("thresholded_relu", {"x": IMAGE, "alpha": F32(0.4)}),
    ("linear_activation", {"x": IMAGE, "alpha": F32(0.4), "beta": F32(-1.0)}),
    ("scaled_tanh", {"x": IMAGE, "alpha": F32(0.4), "beta": F32(1.5)}),
    ("sigmoid_hard", {"x": IMAGE, "alpha": F32(0.4), "beta": F32(0.5)}),
    ("prelu", {"x": IMAGE, "alpha": CHANNELS}),
    ("softplus_parametric", {"x": IMAGE, "alpha": CHANNELS, "beta": CHANNELS + 1}),
    *(("gelu", {"x": IMAGE, "mode": m}) for m in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")),
    ("softmax", {"x": IMAGE, "axis": np.int32(1)}),
    ("softmax", {"x": IMAGE}),
    ("select", {"cond": TRUTH, "a": IMAGE, "b": OTHER}),
    ("cast", {"x": IMAGE * 3, "dtype": "int32"}),
    ("cast", {"x": INTEGERS, "dtype": "fp32"}),
    ("cast", {"x": IMAGE, "dtype": "bool"}),
    *(
        (f"reduce_{name}", {"x": POSITIVE, "axes": np.array([1, -1], np.int32), "keep_dims": keep})
        for name in (
            "mean",
            "sum",
            "max",
            "min",
            "prod",
            "l1_norm",
            "l2_norm",
            "sum_square",
            "log_sum",
            "log_sum_exp",
        )
        for keep in (True, False)
    ),
    ("reduce_sum", {"x": IMAGE}),
    ("reduce_sum", {"x": INTEGERS, "axes": np.array([0], np.int32)}),
    ("reduce_argmax", {"x": IMAGE, "axis": np.int32(1), "keep_dims": False}),
    ("reduce_argmin", {"x": IMAGE, "axis": np.int32(-1), "keep_dims": True}),
    (
        "layer_norm",
        {"x": IMAGE, "axes": np.array([2, 3], np.int32), "gamma": OTHER[0, 0], "beta": OTHER[0, 1]},
    ),
    ("layer_norm", {"x": IMAGE, "axes": np.array([1], np.int32), "epsilon": F32(1e-2)}),
    ("l2_norm", {"x": IMAGE, "epsilon": F32(1e-3)}),
    ("matmul", {"x": IMAGE, "y": OTHER, "transpose_y": True}),
    ("matmul", {"x": IMAGE, "y": OTHER, "transpose_x": True}),
    ("linear", {"x": IMAGE[0, 0], "weight": OTHER[0, 0], "bias": OTHER[0, 1, :, 0]}),
    ("einsum", {"values": (IMAGE, OTHER.transpose(0, 3, 2, 1).copy()), "equation": "nchw,nwhu->nchu"}),
    ("band_part", {"x": IMAGE, "lower": np.int32(1), "upper": np.int32(0)}),
    ("band_part", {"x": IMAGE, "lower": np.int32(-1), "upper": np.int32(1)}),
    ("concat", {"values": (IMAGE, OTHER), "axis": np.int32(1)}),
    ("stack", {"values": (IMAGE, OTHER), "axis": np.int32(2)}),
    ("split", {"x": IMAGE, "axis": np.int32(1), "num_splits": np.int32(2)}),
    ("split", {"x": IMAGE, "axis": np.int32(2), "split_sizes": np.array([1, 3, 2], np.int32)}),
    ("expand_dims", {"x": IMAGE, "axes": np.array([0, -1, 3], np.int32)}),
    ("squeeze", {"x": IMAGE, "axes": np.array([0], np.int32)}),
    ("reshape", {"x": IMAGE, "shape": np.array([2, -1, 5], np.int32)}),
    ("reshape", {"x": IMAGE, "shape": np.array([0, 2, 12, 0], np.int32)}),
    ("reverse", {"x": IMAGE, "axes": np.array([1, 3], np.int32)}),
    ("transpose", {"x": IMAGE, "perm": np.array([0, 2, 3, 1], np.int32)}),
    ("tile", {"x": IMAGE, "reps": np.array([2, 1, 1, 3], np.int32)}),
    ("flatten2d", {"x": IMAGE, "axis": np.int32(2)}),
    ("shape", {"x": IMAGE}),
    ("fill", {"shape": np.array([2, 3], np.int32), "value": F32(0.3)}),
    ("gather", {"x": IMAGE, "indices": np.array([[2, 0], [1, 1]], np.int32), "axis": np.int32(2)}),
    ("gather_along_axis", {"x": IMAGE, "indices": np.zeros((1, 4, 2, 5), np.int32) + 3, "axis": np.int32(2)}),
    ("pad", {"x": IMAGE, "pad": np.array([0, 0, 1, 2, 3, 0, 0, 1], np.int32), "constant_val": F32(0.5)}),
    ("pad", {"x": IMAGE, "pad": np.array([1, 2, 3, 1], np.int32), "mode": "reflect"}),
    ("pad", {"x": IMAGE, "pad": np.array([1, 2, 3, 1], np.int32), "mode": "replicate"}),
    (
        "slice_by_index",
        {
            "x": IMAGE,
            "begin": np.array([0, 1, -1, 0], np.int32),
            "end": np.array([0, 3, 0, 4], np.int32),
            "stride": np.array([1, 1, -2, 3], np.int32),
            "end_mask": np.array([True, False, False, False]),
        },
    ),
    (
        "slice_by_index",
        {
            "x": IMAGE,
            "begin": np.array([0, 1, -2, 0], np.int32),
            "end": np.array([1, 3, 0, 4], np.int32),
            "begin_mask": np.array([False, False, False, True]),
            "squeeze_mask": np.array([False, False, True, False]),
        },
    ),
    (
        "slice_by_size",
        {"x": IMAGE, "begin": np.array([0, 1, 2, 0], np.int32), "size": np.array([1, 2, 3, -1], np.int32)},
    ),
    ("quantize", {"input": IMAGE, "scale": F32(0.05), "zero_point": np.int8(3), "output_dtype": "int8"}),
    ("quantize", {"input": IMAGE, "scale": CHANNELS + 0.3, "output_dtype": "int8", "axis": np.int32(1)}),
]


@pytest.mark.parametrize(
    ("kind", "inputs"), EVALUATED, ids=[f"{k}-{i}" for i, (k, _) in enumerate(EVALUATED)]
)
def test_as_coremltools_evaluates_constants(kind, inputs):
    pytest.importorskip("coremltools")
    wanted = evaluated(kind, inputs)
    found = run(kind, inputs, [Type(kind=w.dtype.name, shape=w.shape) for w in wanted])
    for ours, theirs in zip(found, wanted, strict=True):
        if theirs.dtype == np.float32:
            assert np.allclose(ours, theirs, rtol=2e-5, atol=2e-6)
        else:
            assert np.array_equal(ours, theirs)


def evaluated(kind, inputs):
    """coremltools' value of an operator on constants."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder, Function

    with Function({}, opset_version=ct.target.iOS17):
        made = getattr(Builder, kind)(**inputs)
    values = made if isinstance(made, list | tuple) else [made]
    assert all(value.val is not None for value in values), "coremltools does not evaluate it"
    return [np.asarray(value.val) for value in values]


def run(kind, inputs, declared):
    """The interpreter's values, in the declared types."""
    constants = {}
    handed = {}
    for key, value in inputs.items():
        handed[key] = value if isinstance(value, str) else given(value)
    outputs = tuple((f"y{i}", each) for i, each in enumerate(declared))
    operation = Operation(kind=kind, name="it", inputs=handed, outputs=outputs)
    return [found.numpy() for found in compute(operation, constants).values()]


def given(value):
    if isinstance(value, tuple):
        return [torch.from_numpy(part) for part in value]
    return torch.from_numpy(np.array(value))


X = torch.from_numpy(IMAGE)
W = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(1))
AGAINST_TORCH = [
    (
        "conv",
        {"weight": W, "pad_type": "custom", "pad": [1, 1, 2, 2], "strides": [2, 1], "groups": 2},
        lambda: F.conv2d(X, W, stride=(2, 1), padding=(1, 2), groups=2),
    ),
    (
        "conv",
        {
            "weight": W,
            "pad_type": "custom",
            "pad": [0, 1, 2, 0],
            "dilations": [1, 2],
            "groups": 2,
            "bias": W[:, 0, 0, 0],
        },
        lambda: F.conv2d(F.pad(X, (2, 0, 0, 1)), W, W[:, 0, 0, 0], dilation=(1, 2), groups=2),
    ),
    ("conv", {"weight": W, "pad_type": "same", "groups": 2}, lambda: F.conv2d(X, W, padding=1, groups=2)),
    ("conv", {"weight": W, "pad_type": "valid", "groups": 2}, lambda: F.conv2d(X, W, groups=2)),
    (
        "conv_transpose",
        {"weight": W[:4], "pad_type": "custom", "pad": [1, 1, 0, 0], "strides": [2, 2], "groups": 2},
        lambda: F.conv_transpose2d(X, W[:4], stride=2, padding=(1, 0), groups=2),
    ),
    (
        "max_pool",
        {
            "kernel_sizes": [3, 3],
            "strides": [2, 2],
            "pad_type": "custom",
            "pad": [1, 1, 1, 1],
            "ceil_mode": True,
        },
        lambda: F.max_pool2d(X, 3, 2, 1, ceil_mode=True),
    ),
    (
        "max_pool",
        {"kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "custom", "pad": [0, 1, 1, 0]},
        lambda: F.max_pool2d(F.pad(X, (1, 0, 0, 1), value=-1e9), 2, 2),
    ),
    (
        "avg_pool",
        {
            "kernel_sizes": [3, 3],
            "strides": [2, 2],
            "pad_type": "custom",
            "pad": [1, 1, 1, 1],
            "ceil_mode": True,
        },
        lambda: F.avg_pool2d(X, 3, 2, 1, ceil_mode=True),
    ),
    (
        "avg_pool",
        {"kernel_sizes": [3, 3], "pad_type": "same", "exclude_padding_from_average": True},
        lambda: F.avg_pool2d(X, 3, 1, 1, count_include_pad=False),
    ),
    (
        "avg_pool",
        {
            "kernel_sizes": [2, 2],
            "pad_type": "custom",
            "pad": [0, 1, 0, 1],
            "exclude_padding_from_average": True,
        },
        lambda: _without_what_hangs_over(),
    ),
    (
        "batch_norm",
        {"mean": CHANNELS, "variance": CHANNELS**2 + 1, "gamma": CHANNELS + 1, "beta": CHANNELS},
        lambda: F.batch_norm(
            X, *(torch.from_numpy(v) for v in (CHANNELS, CHANNELS**2 + 1, CHANNELS + 1, CHANNELS))
        ),
    ),
    ("instance_norm", {"epsilon": 1e-3}, lambda: F.instance_norm(X, eps=1e-3)),
    (
        "local_response_norm",
        {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0},
        lambda: F.local_response_norm(X, 3, 0.1, 0.5, 2.0),
    ),
    ("pixel_shuffle", {"upscale_factor": 2}, lambda: F.pixel_shuffle(X, 2)),
    ("crop", {"crop_height": [1, 2], "crop_width": [0, 3]}, lambda: X[:, :, 1:4, :2]),
    (
        "sliding_windows",
        {"axis": 2, "size": 3, "stride": 2},
        lambda: torch.stack([X[:, :, 0:3], X[:, :, 2:5]], 2),
    ),
    ("gather_nd", {"indices": [[0, 2], [0, 1]]}, lambda: X[[0, 0], [2, 1]]),
    ("silu", {}, lambda: F.silu(X)),
    (
        "pixel_unshuffle",
        {"x": IMAGE[..., :4], "downscale_factor": 2},
        lambda: F.pixel_unshuffle(X[..., :4], 2),
    ),
    (
        "resize",
        {"shape": [0, 9, 3], "resized_dims": 2, "sampling_mode": "UNALIGN_CORNERS"},
        lambda: F.interpolate(X, (9, 3), mode="bilinear"),
    ),
    (
        "resize",
        {"shape": [12, 0], "resized_dims": 2, "interpolation_mode": "NEAREST_NEIGHBOR"},
        lambda: F.interpolate(X, (12, 5)),
    ),
    *(
        (
            "resample",
            {
                "coordinates": POINTS,
                "sampling_mode": "bilinear",
                "padding_mode": ours,
                "padding_value": 0.0,
                "coordinates_mode": "normalized_minus_one_to_one",
                "align_corners": corners,
            },
            lambda theirs=theirs, corners=corners: F.grid_sample(
                X, torch.from_numpy(POINTS), padding_mode=theirs, align_corners=corners
            ),
        )
        for ours, theirs in (("constant", "zeros"), ("border", "border"))
        for corners in (True, False)
    ),
    (
        "upsample_nearest_neighbor",
        {"scale_factor_height": 2.0, "scale_factor_width": 3.0},
        lambda: F.interpolate(X, scale_factor=(2, 3)),
    ),
    (
        "resize_nearest_neighbor",
        {"target_size_height": 12, "target_size_width": 5},
        lambda: F.interpolate(X, (12, 5)),
    ),
    *(
        (
            "upsample_bilinear",
            {"scale_factor_height": 2.0, "scale_factor_width": 1.6, "align_corners": corners},
            lambda corners=corners: F.interpolate(X, (12, 8), mode="bilinear", align_corners=corners),
        )
        for corners in (True, False)
    ),
    *(
        (
            "resize_bilinear",
            {"target_size_height": 9, "target_size_width": 3, "sampling_mode": mode},
            lambda corners=corners: F.interpolate(X, (9, 3), mode="bilinear", align_corners=corners),
        )
        for mode, corners in (("STRICT_ALIGN_CORNERS", True), ("UNALIGN_CORNERS", False))
    ),
]


def _without_what_hangs_over():
    """Means over windows of two by two that are cut off at the lower right border."""
    rows = [X[..., i : i + 2, j : j + 2].mean((-2, -1)) for i in range(6) for j in range(5)]
    return torch.stack(rows, -1).reshape(1, 4, 6, 5)


@pytest.mark.parametrize(
    ("kind", "options", "torch_says"),
    AGAINST_TORCH,
    ids=[f"{k}-{i}" for i, (k, *_) in enumerate(AGAINST_TORCH)],
)
def test_as_torch_computes_it(kind, options, torch_says):
    wanted = torch_says()
    handed = {key: typed(value) for key, value in options.items()}
    found = run(kind, {"x": IMAGE, **handed}, [Type(kind="float32", shape=tuple(wanted.shape))])
    assert np.allclose(found[0], wanted.numpy(), rtol=1e-5, atol=1e-6)


def typed(value):
    """Options as a file has them: integers of 32 bits, floats of 32."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    array = np.array(value)
    kinds = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
    return value if isinstance(value, str) else array.astype(kinds.get(array.dtype, array.dtype))


def test_dequantize_is_scale_times_the_distance_from_zero():
    found = run(
        "dequantize",
        {
            "input": np.array([[-128, 0], [5, 127]], np.int8),
            "scale": np.array([0.5, 2], F32),
            "zero_point": np.array([1, -1], np.int8),
            "axis": np.int32(0),
        },
        [Type(kind="float32", shape=(2, 2))],
    )
    assert found[0].tolist() == [[-64.5, -0.5], [12.0, 256.0]]


def test_attention_weighs_values_by_their_keys():
    query, key, value = IMAGE[0], OTHER[0], DRAW.normal(size=(4, 6, 3)).astype(F32)
    mask = DRAW.normal(size=(6, 6)).astype(F32)
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(5) + mask
    share = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    (found,) = run(
        "scaled_dot_product_attention",
        {"query": query, "key": key, "value": value, "attn_mask": mask},
        [Type(kind="float32", shape=(4, 6, 3))],
    )
    assert np.allclose(found, share @ value, atol=1e-5)


GRID = {
    ("UNALIGN_CORNERS", 5): [0.0, 0.1, 0.5, 0.9, 1.0],
    ("ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("DEFAULT", 5): [0.0, 0.4, 0.8, 1.0, 1.0],
    ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
    ("UNALIGN_CORNERS", 6): [0.0, 0.0, 0.33, 0.67, 1.0, 1.0],
    ("STRICT_ALIGN_CORNERS", 6): [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    ("DEFAULT", 6): [0.0, 0.33, 0.67, 1.0, 1.0, 1.0],
    ("OFFSET_CORNERS", 6): [0.08, 0.25, 0.42, 0.58, 0.75, 0.92],
    ("ALIGN_CORNERS", 1): [0.5],
    ("STRICT_ALIGN_CORNERS", 1): [0.0],
}


@pytest.mark.parametrize(("mode", "wanted"), GRID)
def test_sampling_points_are_those_of_the_documentation(mode, wanted):
    """The examples in the documentation of `resize_bilinear`, two pixels enlarged."""
    assert resizing.points(2, wanted, mode).tolist() == pytest.approx(GRID[mode, wanted], abs=5e-3)


SHAPE = (1, 4, 6, 5)
REFUSED = {
    "a fraction of nearest neighbours": (
        "upsample_nearest_neighbor",
        {"scale_factor_height": 1.5},
        "6 pixels enlarged to 9",
    ),
    "fewer nearest neighbours": (
        "resize_nearest_neighbor",
        {"target_size_height": 3, "target_size_width": 5},
        "enlarged to 3",
    ),
    "an odd element of same padding": (
        "conv",
        {"weight": W[:, :, :2, :2], "pad_type": "same", "groups": 2},
        "'same' of kernel 2",
    ),
    "same padding of a transposed convolution": (
        "conv_transpose",
        {"weight": W[:4], "pad_type": "same", "groups": 2},
        "transposed",
    ),
    "integers divided": ("real_div", {"x": INTEGERS, "y": INTEGERS}, "division of integers"),
    "an index outside": ("gather", {"indices": [-1], "axis": 1}, "outside 0..3"),
    "batch dimensions": ("gather", {"indices": [0], "axis": 1, "batch_dims": 1}, "batch dimensions"),
    "a sampling mode": ("resize_bilinear", {"target_size_height": 3, "sampling_mode": "OTHER"}, "'OTHER'"),
    "an unknown option": ("relu", {"new_option": 1}, "new_option"),
    "a shape that is not declared": ("relu", {}, "the file declares"),
    "shapes that do not fit": ("add", {"y": np.zeros((3, 3), F32)}, "is not interpreted as it stands"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_ambiguous_is_refused_by_name(case):
    kind, options, says = REFUSED[case]
    handed = {"x": IMAGE, **{key: typed(value) for key, value in options.items()}}
    with pytest.raises(Refused, match=rf"operator '{kind}' \('it'\)") as caught:
        run(kind, handed, [Type(kind="float32", shape=(7, 7))])
    assert says in str(caught.value)


def test_an_unknown_operator_is_refused_before_anything_runs():
    number = Type(kind="float32", shape=(1,))
    operations = tuple(
        Operation(kind=kind, name=f"the_{kind}", inputs={"x": Name(name="x")}, outputs=((kind, number),))
        for kind in ("relu", "non_maximum_suppression")
    )
    program = MlProgram(opset="CoreML7", inputs=(("x", number),), outputs=("relu",), operations=operations)
    with pytest.raises(Refused, match=r"'non_maximum_suppression' \('the_non_maximum_suppression'\)"):
        Interpreter(program=program, inputs=("x",), outputs=("relu",)).run((np.zeros(1, F32),))


def test_results_are_rounded_to_their_declared_type_and_overflow():
    """1/3 + 1/3 in float32, rounded once to fp16; 300 * 300 is beyond fp16."""
    third = np.full(1, 1 / 3, np.float16)
    (found,) = run("add", {"x": third, "y": third}, [Type(kind="float16", shape=(1,))])
    assert found.dtype == np.float16
    assert found == np.float16(np.float32(third) + np.float32(third))
    large = np.full(1, 300, np.float16)
    assert np.isinf(run("mul", {"x": large, "y": large}, [Type(kind="float16", shape=(1,))])[0])


def test_every_operator_is_tested_here():
    tested = {kind for kind, *_ in EVALUATED} | {kind for kind, *_ in AGAINST_TORCH}
    by_hand = {"dequantize", "scaled_dot_product_attention"}
    assert COMPUTED.keys() | MOVED.keys() == tested | by_hand


def test_moved_values_keep_every_bit():
    bits = np.array([0x7C01, 0x0001, 0x8000, 0x3C00], np.uint16).view(np.float16)
    (found,) = run(
        "reshape", {"x": bits, "shape": np.array([2, 2], np.int32)}, [Type(kind="float16", shape=(2, 2))]
    )
    assert np.array_equal(found.reshape(-1).view(np.uint16), bits.view(np.uint16))
