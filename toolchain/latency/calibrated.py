"""The latency of a network on a device that is not at hand: models fitted to published measurements.

Given:  a target's data file (written by `benchmarks/calibration`) and the operators of a network
Result: a `Prediction`: an `Estimate`, the interval where 90 % of unseen networks lay, each layer's share

    ms = overhead + sum over operators and terms of (amount * milliseconds per amount)

A prediction is never a measurement, whatever its evidence.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from toolchain.errors import InputError
from toolchain.latency.operators import KINDS, Operator
from toolchain.latency.terms import INFERENCE, amounts
from toolchain.plain import from_plain
from toolchain.values import Estimate, Precision

SCHEMA: Final = "edgefit.calibration/1"
_FAR: Final = 3.0
"""A prediction this many times outside the measured range is called an extrapolation."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where measurements were published. `label` is what its licence asks to be said with them."""

    url: str
    date: str
    rows: int
    paths: tuple[str, ...]
    statistic: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a model was fitted to, and its mean relative error on networks and families left out of the fit.

    `interval_coverage` is the share of rows inside intervals made without their network; errors are None
    where nothing could be left out. `range_ms` are the shortest and longest published latency, `kinds` the
    kinds of operators that the measured networks had.
    """

    rows: int
    networks: int
    families: tuple[str, ...]
    sources: tuple[Source, ...]
    left_out_network: float | None
    left_out_family: float | None
    interval_coverage: float | None
    range_ms: tuple[float, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Factors on a prediction that bound its interval, and from how many left-out rows they come."""

    low: float
    high: float
    residuals: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """One device, runtime, accelerator and precision. `ms_per` maps terms to milliseconds per amount.

    `adapted` says by what measurements the user's own device took the published one's place.
    """

    variant: str
    devices: tuple[str, ...]
    chips: tuple[str, ...]
    runtime: str
    engine: str
    accelerator: str
    precision: Precision
    threads: int | None
    align: int
    ms_per: Mapping[str, float]
    interval: Factors
    evidence: Basis
    adapted: str = ""

    @property
    def name(self) -> str:
        """`iphone-12, Core ML, fp16`, with the threads where they are known."""
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        return f"{self.variant}, {self.engine}, {self.precision}{threads}"


@dataclass(frozen=True, kw_only=True)
class Calibrations:
    """All models of one target. `aliases` names devices whose model is another variant's, and why."""

    schema: str
    target: str
    made_by: str
    table_sha256: str
    coverage: float
    default: str
    aliases: Mapping[str, str]
    absent: Mapping[str, str]
    models: tuple[Calibration, ...]


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of a prediction that one operator takes."""

    layer: str
    op: str
    ms: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An estimate with its interval. `overhead_ms` belongs to no operator; `outside` warns, line by line."""

    estimate: Estimate
    low_ms: float
    high_ms: float
    overhead_ms: float
    shares: tuple[Share, ...]
    outside: tuple[str, ...]


def read(path: Path) -> Calibrations:
    """The models in a data file.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        found = from_plain(Calibrations, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the latency models in {path.name}: {error}") from error
    if found.schema != SCHEMA:
        raise InputError(f"{path.name} has the format {found.schema}", hint=f"this version reads {SCHEMA}")
    return found


def variants(known: Calibrations) -> tuple[str, ...]:
    """Every variant that there is a model for, aliases included."""
    return tuple(sorted({m.variant for m in known.models} | set(known.aliases)))


def choose(
    known: Calibrations,
    *,
    variant: str = "",
    runtime: str = "auto",
    precisions: Sequence[Precision] = (),
    threads: int | None = None,
) -> tuple[Calibration, ...]:
    """The models that fit the wishes, the best founded one first; `runtime` may pin `name@version`.

    `variant` may also be a device as its publisher calls it.

    Best founded: the runtime that the file has first, most networks, the newest engine, the smallest error.

    Raises:
        InputError: nothing fits; the hint says what there is.
    """
    named = variant or known.default
    wanted = known.aliases.get(named, named)
    models = [m for m in known.models if m.variant == wanted or named in m.devices]
    if not models:
        raise _no_variant(known, variant)
    name, _, version = runtime.partition("@")
    tests: tuple[tuple[bool, Callable[[Calibration], bool]], ...] = (
        (name != "auto", lambda m: m.runtime == name),
        (bool(version), lambda m: version in re.split(r"[ v()]+", m.engine)),
        (bool(precisions), lambda m: m.precision in precisions),
        (threads is not None, lambda m: m.threads == threads),
    )
    for asked, test in tests:
        kept = [m for m in models if test(m)] if asked else models
        if not kept:
            there = "; ".join(sorted({m.name for m in models}))
            raise InputError(f"no such latency model of {wanted}", hint=f"there are: {there}")
        models = kept
    runtimes = list(dict.fromkeys(m.runtime for m in known.models))
    return tuple(sorted(models, key=lambda m: (runtimes.index(m.runtime), *_standing(m))))


def _standing(model: Calibration) -> tuple[float, ...]:
    version = tuple(-float(n) for n in re.findall(r"\d+", model.engine)[:3])
    error = model.evidence.left_out_network
    return (-model.evidence.networks, 1.0 if error is None else 0.0, *version, error or 0.0)


def _no_variant(known: Calibrations, variant: str) -> InputError:
    if variant in known.absent:
        return InputError(f"no latency model of {known.target}:{variant}", hint=known.absent[variant])
    names = variants(known)
    near = difflib.get_close_matches(variant, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"{known.target} has no variant '{variant}'", hint=f"{hint}known: {', '.join(names)}")


def predict(model: Calibration, operators: Iterable[Operator]) -> Prediction:
    """The latency of a network with these operators, one sample an inference."""
    every = tuple(operators)
    shares = tuple(Share(layer=o.layer, op=o.op, ms=operator_ms(model, o)) for o in every)
    overhead = model.ms_per.get(INFERENCE, 0.0)
    total = overhead + sum(share.ms for share in shares)
    return Prediction(
        estimate=Estimate(ms=total, source=f"published latencies of {model.name}"),
        low_ms=total * model.interval.low,
        high_ms=total * model.interval.high,
        overhead_ms=overhead,
        shares=shares,
        outside=tuple(_outside(model, every, total)),
    )


def operator_ms(model: Calibration, operator: Operator) -> float:
    """Milliseconds of one operator."""
    found = amounts(operator, model.align)
    return sum(model.ms_per.get(term, 0.0) * amount for term, amount in found.items())


def _outside(model: Calibration, operators: Sequence[Operator], total: float) -> Iterable[str]:
    """Why the interval may not hold for this network."""
    unseen = sorted({o.kind for o in operators if o.kind != "other"} - set(model.evidence.kinds))
    if unseen:
        said = ", ".join(KINDS[kind] for kind in unseen)
        yield f"no network measured on {model.variant} has {said}"
    unknown = sorted({o.op for o in operators if o.kind == "other"})
    if unknown:
        yield f"operators counted by their memory traffic alone: {', '.join(unknown)}"
    shortest, longest = model.evidence.range_ms
    if not shortest / _FAR <= total <= longest * _FAR:
        yield f"far outside the measured range, {shortest:.3g} to {longest:.3g} ms"


def evidence_of(model: Calibration) -> dict[str, Any]:
    """What a prediction rests on, for records."""
    basis = model.evidence
    return {
        "devices": list(model.devices),
        "chips": list(model.chips),
        "rows": basis.rows,
        "networks": basis.networks,
        "left_out_network": basis.left_out_network,
        "left_out_family": basis.left_out_family,
        "interval_coverage": basis.interval_coverage,
        "sources": [
            {"url": s.url, "date": s.date, "rows": s.rows, "statistic": s.statistic, "label": s.label}
            for s in basis.sources
        ],
    }
