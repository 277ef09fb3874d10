"""Fits the latency models of devices that are not at hand to published latencies, and judges them.

    python -m benchmarks.calibration.run published_latency.csv.gz --out targets/_calibrated

Every network of the table that has a public definition is rebuilt, its operators counted, and coefficients
are fitted. Errors are of networks that the fit did not see: one network at a time is left out (at all its
input sizes, on all devices), and then one family at a time. Writes one data file a target, and results.json,
results.md and results.svg beside this file. Needs torchvision and timm, for their definitions alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration.fit import left_out, together
from benchmarks.calibration.networks import architecture, family, features
from benchmarks.calibration.plot import plot
from benchmarks.calibration.report import panels, results_text
from benchmarks.calibration.suites import DERIVED, NAMES, SUITES, Row, Suite, rows_of, table
from toolchain.latency.terms import INFERENCE, amounts

COVERAGE = 0.9
WORST_SHIPPED = 0.30
POOLED = 12
"""Groups of fewer networks borrow the residuals of their suite, same precision, for their interval."""


def main() -> None:
    """Fit every suite and write what the product ships and what the reader checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="published_latency.csv.gz")
    parser.add_argument("--out", type=Path, default=Path("targets/_calibrated"))
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache/calibration"), help="operators of networks"
    )
    parser.add_argument("--only", help="one target")
    flags = parser.parse_args()
    published = table(flags.table)
    digest = hashlib.sha256(flags.table.read_bytes()).hexdigest()
    entries: dict[str, list[dict[str, Any]]] = defaultdict(list)
    rows = {suite: list(rows_of(suite, published)) for suite in SUITES}
    known = sorted({row.key for mine in rows.values() for row in mine})
    for suite in SUITES:
        if flags.only in (None, suite.target):
            library = np.array([_amounts(key, suite, flags.cache) for key in known])
            found = fitted(suite, rows[suite], flags.cache, usual=(library / library[:, :1]).mean(0))
            entries[suite.target] += found
            print(f"{suite.target} {suite.runtime}: {len(found)} models", flush=True)
    flags.out.mkdir(parents=True, exist_ok=True)
    for target, models in entries.items():
        record = {
            "schema": "edgefit.calibration/1",
            "target": target,
            "made_by": "python -m benchmarks.calibration.run",
            "table_sha256": digest,
            "coverage": COVERAGE,
            **NAMES[target],
            "models": [{k: v for k, v in m.items() if k != "residuals"} for m in models if ships(m)],
        }
        (flags.out / f"{target.replace('-', '_')}.json").write_text(json.dumps(record, indent=1) + "\n")
    here = Path(__file__).parent
    if flags.only is None:
        (here / "results.json").write_text(json.dumps(_residuals(entries), indent=1) + "\n")
        (here / "results.md").write_text(results_text(entries))
        (here / "results.svg").write_text(plot(panels(entries)))


def ships(model: dict[str, Any]) -> bool:
    """Whether the model holds on networks that it has not seen."""
    error = model["evidence"]["left_out_network"]
    return error is not None and error <= WORST_SHIPPED


def fitted(
    suite: Suite, rows: Sequence[Row], cache: Path, usual: np.ndarray[Any, Any]
) -> list[dict[str, Any]]:
    """The suite's models, each with its evidence; groups with too few networks help, but are not shipped."""
    counts = {key: _amounts(key, suite, cache) for key in sorted({row.key for row in rows})}
    x = np.array([counts[row.key] for row in rows])
    y = np.array([row.ms for row in rows])
    groups = [row.group for row in rows]
    models = together(x, y, groups, suite.strength, usual)
    by_network = left_out(x, y, groups, [architecture(row.key) for row in rows], suite.strength, usual)
    by_family = left_out(x, y, groups, [family(row.key) for row in rows], suite.strength, usual)
    residuals = np.log(y / by_network)
    found = []
    for group in sorted(models, key=str):
        mine = np.array([g == group for g in groups])
        own = [row for row in rows if row.group == group]
        if len({architecture(row.key) for row in own}) < suite.fewest:
            continue
        same = np.array([row.precision == own[0].precision for row in rows])
        alike = mine if len({row.key for row in own}) >= POOLED else same
        low, high = interval(residuals[alike])
        found.append(
            {
                **_identity(suite, own),
                "align": suite.align,
                "ms_per": _coefficients(suite, models[group]),
                "interval": {"low": round(low, 4), "high": round(high, 4), "residuals": int(alike.sum())},
                "evidence": {
                    **_evidence(own),
                    "range_ms": [float(y[mine].min()), float(y[mine].max())],
                    "kinds": sorted({o.kind for row in own for o in features(row.key, cache)}),
                    "left_out_network": _error(y[mine], by_network[mine]),
                    "left_out_family": _error(y[mine], by_family[mine]),
                    "interval_coverage": _covered(residuals, alike, mine, [r.key for r in rows]),
                },
                "residuals": [
                    {"network": r.key, "ms": r.ms, "predicted": _rounded(p), "family_unseen": _rounded(q)}
                    for r, p, q in zip(own, by_network[mine], by_family[mine], strict=True)
                ],
            }
        )
    return found


def interval(residuals: np.ndarray[Any, Any], coverage: float = COVERAGE) -> tuple[float, float]:
    """Factors below and above a prediction between which `coverage` of unseen networks lie.

    Order statistics of the logarithms of measured / predicted, with the correction for their number that
    makes the coverage hold on average (split conformal prediction, Vovk et al. 2005).
    """
    known = np.sort(residuals[np.isfinite(residuals)])
    tail = (1 - coverage) / 2
    rank = min(1.0, (1 - tail) * (len(known) + 1) / max(len(known), 1))
    high = np.quantile(known, rank, method="higher")
    low = np.quantile(known, 1 - rank, method="lower")
    return float(np.exp(low)), float(np.exp(high))


def _covered(
    residuals: np.ndarray[Any, Any],
    alike: np.ndarray[Any, Any],
    mine: np.ndarray[Any, Any],
    keys: Sequence[str],
) -> float | None:
    """The share of the group's rows inside an interval made without the row's network."""
    inside = []
    for k in np.flatnonzero(mine & np.isfinite(residuals)):
        others = alike & np.array([architecture(key) != architecture(keys[k]) for key in keys])
        low, high = interval(residuals[others])
        inside.append(low <= np.exp(residuals[k]) <= high)
    return round(float(np.mean(inside)), 3) if inside else None


def _amounts(key: str, suite: Suite, cache: Path) -> list[float]:
    total: Counter[str] = Counter()
    for operator in features(key, cache):
        for term, amount in amounts(operator, suite.align).items():
            total[term] += amount  # type: ignore[assignment]
    return [*(total[term] for term in suite.terms), 1.0]


def _coefficients(suite: Suite, model: np.ndarray[Any, Any]) -> dict[str, float]:
    pairs = zip((*suite.terms, INFERENCE), model, strict=True)
    return {term: float(f"{value:.5g}") for term, value in pairs if value > 0}


def _identity(suite: Suite, rows: Sequence[Row]) -> dict[str, Any]:
    first = rows[0]
    return {
        "variant": first.variant,
        "devices": sorted({row.device for row in rows}),
        "chips": sorted({row.chip for row in rows if row.chip}),
        "runtime": suite.runtime,
        "engine": first.engine,
        "accelerator": first.accelerator,
        "precision": first.precision,
        "threads": first.threads,
    }


def _evidence(rows: Sequence[Row]) -> dict[str, Any]:
    sources = []
    for url in sorted({row.url for row in rows}):
        mine = [row for row in rows if row.url == url]
        label = {"label": DERIVED} if "inference_results" in url else {}
        sources.append(
            {
                "url": url,
                "date": ", ".join(sorted({row.date for row in mine if row.date})),
                "rows": len(mine),
                "paths": sorted({row.path for row in mine})[:3],
                "statistic": ", ".join(sorted({row.statistic for row in mine})),
                **label,
            }
        )
    return {
        "rows": len(rows),
        "networks": len({row.key for row in rows}),
        "families": sorted({family(row.key) for row in rows}),
        "sources": sources,
    }


def _error(y: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> float | None:
    """Mean absolute relative error; None where nothing could be left out."""
    known = np.isfinite(predicted)
    if not known.any():
        return None
    return round(float(np.mean(np.abs(predicted[known] / y[known] - 1))), 4)


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _residuals(entries: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    keep = ("variant", "runtime", "engine", "precision", "threads", "residuals")
    return {t: [{k: m[k] for k in keep} for m in models] for t, models in entries.items()}


if __name__ == "__main__":
    main()
