"""Resources of one inference of one sample: multiply-accumulates, parameters, bytes, activation volume.

`CostModel` evaluates planned widths without rewriting anything: every resource is a polynomial in the kept
counts, prepared once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from toolchain.program.axes import Axes, Call, Sizes, call_of
from toolchain.program.channels import Analysis, examine
from toolchain.program.labels import Ints, Vector
from toolchain.program.rules.recurrent import GATES, matrices
from toolchain.program.rules.weighted import letters_of
from toolchain.program.tracing import Tracing
from toolchain.program.widths import Terms, term_table
from toolchain.values import Channels, Cost, Layer, Program

BYTES_PER_WEIGHT: Final = 4
_CONVOLUTIONS: Final = ["conv1d", "conv2d", "conv3d", "convolution", "_convolution"]
_TRANSPOSED: Final = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
_PRODUCTS: Final = ["matmul", "mm", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"]
RESOURCES: Final = ("macs", "params", "neurons")
_MACS, _PARAMS, _NEURONS = range(3)

Factors = Sequence[tuple[Vector, int]]
"""Dimensions whose sizes are multiplied."""


def layers(program: Program) -> tuple[Layer, ...]:
    """Every convolution and linear layer in graph order, sizes as captured."""
    sizes = Sizes()
    found = (_layer(program.module, sizes, call) for call in _weighted(program.module))
    return tuple(layer for layer in found if layer is not None)


def cost(program: Program) -> Cost:
    """The program's own cost.

    `macs` counts convolutions, linear layers, products of activations (attention) and recurrent layers;
    `neurons` is the number of elements that convolutions and linear layers put out (budget-aware
    regularisation, volume of activation maps); `weight_bytes` is fp32.
    """
    analysis = examine(program)
    return CostModel.of_program(program, analysis.channels, analysis=analysis).of({})


def planned_cost(program: Program, channels: Channels, counts: Mapping[str, int]) -> Cost:
    """The cost after pruning to `counts` units a group; equals `cost(apply(...))`."""
    return CostModel.of_program(program, channels).of(counts)


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Costs as polynomials in kept counts: monomial m is `coefficients[m] * prod(counts[powers[m]])`."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    powers: NDArray[np.int64]
    coefficients: NDArray[np.int64]

    @classmethod
    def of_program(
        cls, program: Program, channels: Channels, *, analysis: Analysis | None = None
    ) -> CostModel:
        """Prepare the polynomials; `channels` must be the program's own."""
        analysis = analysis or examine(program)
        monomials: dict[tuple[int, ...], Ints] = {}
        tables: dict[int, tuple[Ints, Terms]] = {}

        def add(resource: int, factors: Factors, times: int = 1) -> None:
            parts = [_terms(analysis, tables, vector, size) for vector, size in factors]
            for choice in product(*parts):
                key = tuple(sorted(g + 1 for _, groups in choice for g in groups))
                slot = monomials.setdefault(key, np.zeros(3, np.int64))
                slot[resource] += times * prod(c for c, _ in choice)

        for factors in _parameter_factors(analysis, program.module):
            add(_PARAMS, factors)
        for call in _weighted(program.module):
            macs, outputs = _layer_factors(analysis, call)
            add(_MACS, macs)
            add(_NEURONS, outputs)
        for factors, times in _product_factors(analysis, program.module):
            add(_MACS, factors, times)
        width = max((len(key) for key in monomials), default=0)
        powers = np.array([(*key, *[0] * (width - len(key))) for key in monomials], np.int64)
        return cls(
            names=tuple(g.name for g in channels.all),
            sizes=tuple(g.size for g in channels.all),
            powers=powers.reshape(len(monomials), width),
            coefficients=np.array(list(monomials.values()), np.int64).reshape(-1, 3),
        )

    def of(self, counts: Mapping[str, int]) -> Cost:
        """The cost when group g keeps `counts[g]` units; groups not named stay whole."""
        kept = np.array(
            [1, *(counts.get(name, size) for name, size in zip(self.names, self.sizes, strict=True))]
        )
        totals = kept[self.powers].prod(1) @ self.coefficients
        return Cost(
            macs=int(totals[_MACS]),
            params=int(totals[_PARAMS]),
            weight_bytes=int(totals[_PARAMS]) * BYTES_PER_WEIGHT,
            neurons=int(totals[_NEURONS]),
        )


def volumes(
    program: Program, channels: Channels, nodes: Collection[str]
) -> dict[str, tuple[tuple[int, tuple[str, ...]], ...]]:
    """Activation elements that nodes read and write for one sample, as sums of products of kept counts.

    Nodes that yield several tensors or none count by what they read alone.
    """
    analysis, names = examine(program), tuple(g.name for g in channels.all)
    tables: dict[int, tuple[Ints, Terms]] = {}
    found: dict[str, tuple[tuple[int, tuple[str, ...]], ...]] = {}
    for node in program.module.graph.nodes:
        if node.name not in nodes:
            continue
        sums: dict[tuple[str, ...], int] = {}
        for tensor in (node, *(n for n in node.all_input_nodes if n.op != "get_attr")):
            axes = analysis.tracing.values.get(tensor)
            if isinstance(axes, Axes):
                # The batch comes first; where something is folded into it, what is left counts.
                parts = [_terms(analysis, tables, vector, size) for vector, size in _factors(axes, 1)]
                for choice in product(*parts):
                    key = tuple(sorted(names[g] for _, groups in choice for g in groups))
                    sums[key] = sums.get(key, 0) + prod(c for c, _ in choice)
        found[node.name] = tuple((coefficient, key) for key, coefficient in sums.items())
    return found


def _terms(analysis: Analysis, tables: dict[int, tuple[Ints, Terms]], vector: Vector, size: int) -> Terms:
    """The width of a dimension; made once for each vector, which is kept so that its id stays its own."""
    if vector is None:
        return ((size, ()),)
    if id(vector) not in tables:
        terms = term_table(analysis.tracing.labels, vector, size, analysis.group_of)
        tables[id(vector)] = (vector, terms)
    return tables[id(vector)][1]


def _factors(axes: Axes, skip: int = 0) -> list[tuple[Vector, int]]:
    return list(zip(axes.labels, axes.shape, strict=True))[skip:]


def _weighted(module: GraphModule) -> Iterator[Call]:
    """Convolutions, and products with a matrix of weights."""
    for node in module.graph.nodes:
        call = call_of(node)
        if call is not None and (call.op in (*_CONVOLUTIONS, *_TRANSPOSED, "linear") or _is_affine(call)):
            yield call


def _is_affine(call: Call) -> bool:
    """A plain matrix product whose second operand is a parameter, perhaps transposed."""
    return call.op in ("addmm", "mm", "matmul") and _matrix(call) is not None


def _matrix(call: Call) -> Node | None:
    node: Any = call["mat2"] if call["mat2"] is not None else call["other"]
    inner: Any = node
    if isinstance(node, Node) and node.op == "call_function":
        below = call_of(node)
        inner = node.args[0] if below is not None and below.op in ("t", "transpose", "permute") else None
    if isinstance(inner, Node) and inner.op == "get_attr" and len(node.meta["val"].shape) == 2:
        return cast(Node, node)
    return None


def _layer_factors(analysis: Analysis, call: Call) -> tuple[Factors, Factors]:
    """(multiply-accumulates, outputs) per sample, the batch dimension left out."""
    tracing = analysis.tracing
    result = tracing.axes(call.node)
    outputs = _per_sample(result, call)
    if call.op in ("linear", "addmm", "mm", "matmul"):
        weight = call["weight"] if call.op == "linear" else _matrix(call)
        axes = tracing.axes(weight)
        inner = _factors(axes)[-1] if call.op == "linear" else _factors(axes)[0]
        return [*outputs, inner], outputs
    weight_axes = tracing.axes(call["weight"])
    kernel = len(weight_axes) - 2
    slid = tracing.restricted.get(call.node, ())
    if slid:
        # It sees every channel, whatever is cut: the removed ones as zeros.
        result = replace(result, labels=tuple(None if d in slid else v for d, v in enumerate(result.labels)))
        outputs = _per_sample(result, call)
    if call.op in _TRANSPOSED or call["transposed"]:
        source = tracing.axes(call["input"])
        return [*_factors(source)[len(source) - kernel :], *_factors(weight_axes)], outputs
    return [*_factors(result)[len(result) - kernel :], *_factors(weight_axes)], outputs


def _per_sample(result: Axes, call: Call) -> list[tuple[Vector, int]]:
    """All dimensions of one sample's share; a batch folded into other dimensions is divided out."""
    factors = _factors(result)
    value = call.node.meta["val"]
    batch = [d for d, size in enumerate(value.shape) if not isinstance(size, int)]
    if not batch:
        return factors[1:]
    shares: list[tuple[Vector, int]] = []
    for d, (vector, size) in enumerate(factors):
        if d == batch[0]:
            share = _share(value.shape[d])
            if share > 1:
                shares.append((None, share) if vector is None else (vector[:share], share))
        else:
            shares.append((vector, size))
    return shares


def _share(size: Any) -> int:
    """The factor besides the batch: 64 of `64 * s0`."""
    expression = size.node.expr
    symbols = sorted(expression.free_symbols, key=str)
    return int(expression.subs(dict.fromkeys(symbols, 2))) - int(expression.subs(dict.fromkeys(symbols, 1)))


def _product_factors(analysis: Analysis, module: GraphModule) -> Iterator[tuple[Factors, int]]:
    """Products of activations: rows x inner x columns, for attention twice; recurrent layers every step."""
    tracing = analysis.tracing
    for node in module.graph.nodes:
        call = call_of(node)
        if call is None or (call.op not in _PRODUCTS and call.op not in GATES) or _is_affine(call):
            continue
        if call.op in GATES:
            steps = Sizes().shape(call["input"].meta["val"])[-2 if call["batch_first"] else 0]
            for weight in matrices(call):
                yield _factors(tracing.axes(weight)), steps
            continue
        result = _per_sample(tracing.axes(node), call)
        if call.op == "einsum":
            yield [*result, *_summed(tracing, call)], 1
        elif call.op == "scaled_dot_product_attention":
            keys = _factors(tracing.axes(call["key"]))
            yield [*result, keys[-2]], 1
            yield [*result[:-1], keys[-1], keys[-2]], 1
        else:
            first = call["batch1"] if call.op == "baddbmm" else call["self"]
            yield [*result, _factors(tracing.axes(first))[-1]], 1


def _summed(tracing: Tracing, call: Call) -> Factors:
    """The dimensions that an einsum sums over."""
    operands = [tracing.axes(node) for node in call["tensors"]]
    letters, result = letters_of(call, operands)
    known = {
        letter: factor
        for names, axes in zip(letters, operands, strict=True)
        for letter, factor in zip(names, _factors(axes), strict=True)
    }
    return [factor for letter, factor in known.items() if letter not in result]


def _parameter_factors(analysis: Analysis, module: GraphModule) -> Iterator[Factors]:
    """Every parameter once, also those that the graph does not read."""
    tracing = analysis.tracing
    for name, tensor in module.named_parameters():
        known = tracing.same.get(id(tensor))
        if known is not None and known in tracing.parameters:
            yield _factors(tracing.parameters[known])
        else:
            assert name
            yield [(None, size) for size in tensor.shape]


def _layer(module: GraphModule, sizes: Sizes, call: Call) -> Layer | None:
    """The call as a layer; None where its weight is no parameter of the graph's."""
    if call.op in ("addmm", "mm", "matmul"):
        return _matrix_layer(sizes, call)
    weight = call["weight"]
    name = _first_name(module, weight) if weight.op == "get_attr" else weight.name
    shape = sizes.shape(weight.meta["val"]) if "val" in weight.meta else tuple(_tensor(module, name).shape)
    result = sizes.shape(call.node.meta["val"])
    if call.op == "linear":
        return Layer(
            node=call.node.name,
            kind="linear",
            weight=name,
            in_channels=shape[1],
            out_channels=shape[0],
            tokens=_tokens(sizes, call),
            bias=call["bias"] is not None,
        )
    transposed = call.op in _TRANSPOSED or bool(call["transposed"])
    spatial = len(shape) - 2
    groups = call["groups"]
    return Layer(
        node=call.node.name,
        kind="conv",
        weight=name,
        in_channels=shape[0] if transposed else shape[1] * groups,
        out_channels=shape[1] * groups if transposed else shape[0],
        groups=groups,
        kernel=tuple(shape[2:]),
        stride=_each(call["stride"], spatial),
        padding=_padding(call, shape, spatial),
        dilation=_each(call["dilation"], spatial),
        input_size=sizes.shape(call["input"].meta["val"])[-spatial:],
        output_size=result[-spatial:],
        transposed=transposed,
        bias=call["bias"] is not None,
    )


def _first_name(module: GraphModule, weight: Node) -> str:
    """The name under which the analysis knows a parameter that has several."""
    tensor = _tensor(module, str(weight.target))
    names = (str(n.target) for n in weight.graph.nodes if n.op == "get_attr")
    return next(name for name in names if _tensor(module, name) is tensor)


def _matrix_layer(sizes: Sizes, call: Call) -> Layer:
    matrix = _matrix(call)
    assert matrix is not None
    shape = sizes.shape(matrix.meta["val"])
    inner: Any = matrix if matrix.op == "get_attr" else matrix.args[0]
    return Layer(
        node=call.node.name,
        kind="linear",
        weight=str(inner.target),
        in_channels=shape[0],
        out_channels=shape[1],
        tokens=_tokens(sizes, call),
        bias=call.op == "addmm",
    )


def _tokens(sizes: Sizes, call: Call) -> int:
    """Rows multiplied per sample."""
    shape = sizes.shape(call.node.meta["val"])
    plain = Axes(shape=shape, labels=(None,) * len(shape))
    return prod(size for _, size in _per_sample(plain, call)[:-1])


def _tensor(module: GraphModule, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _each(value: Any, count: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * count if len(values) == 1 else values


def _padding(call: Call, shape: Sequence[int], spatial: int) -> tuple[int, ...]:
    """Symmetric padding in numbers; "same" with an even excess is what the kernel and dilation ask for."""
    given = call["padding"]
    if given == "valid":
        return (0,) * spatial
    if given == "same":
        dilation = _each(call["dilation"], spatial)
        return tuple(d * (k - 1) // 2 for d, k in zip(dilation, shape[2:], strict=True))
    return _each(given, spatial)
