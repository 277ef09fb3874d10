"""The interpreted files as a markdown table; every refusal and failure with its cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from toolchain.verify.tolerance import FLOAT_RELATIVE, FP16_SNR_DB

Results = Mapping[str, Any]
FP32: Final = ("original fp32", "half fp32", "uneven fp32")
FP16: Final = "original fp16"
_INTRODUCTION: Final = (
    "Written by Edgefit's exporter, interpreted on torch; not run on Apple hardware. Errors are the largest "
    "difference over the largest value of an output, on two samples of noise (64 for trained networks); "
    "dB is signal to noise. Weights of the torchvision networks are random. Seconds: processor time of one "
    "thread for one sample."
)
_TRAINED: Final = "`vgg` and `mobilenet` are what `python -m benchmarks.better.train` makes."


def markdown(record: Results) -> str:
    """A summary, the trained networks, a row for each network, what was refused or failed."""
    networks: Results = dict(sorted(record["networks"].items()))
    environment = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
    lines = ["# Core ML files, interpreted", "", environment, "", _INTRODUCTION, ""]
    lines += [*_summary(networks, record.get("trained", {}), record.get("of", len(networks))), ""]
    if record.get("trained"):
        lines += [
            "## Trained networks",
            "",
            _TRAINED,
            "",
            "| network | inputs | file | signal to noise, dB | relative error |",
        ]
        lines += ["|---|---|---|---|---|", *_trained(record["trained"]), ""]
    if networks:
        lines += ["## Networks", "", "| network | operators | original | half | uneven | fp16, dB | s |"]
        lines += [
            "|---|---|---|---|---|---|---|",
            *(_row(n, r["files"]) for n, r in networks.items() if "files" in r),
        ]
    failures = [f"- {name}: {cause}" for name, cause in _causes(networks)]
    if failures:
        lines += ["", "## Not interpreted", "", *failures]
    return "\n".join(lines) + "\n"


def _summary(networks: Results, trained: Results, total: int) -> Iterator[str]:
    yield f"- {len(networks)} of {total} torchvision networks run."
    for title, steps in (("original", FP32[:1]), ("pruned (half, uneven)", FP32[1:])):
        errors = [f["relative_error"] for f in _files(networks, steps) if "relative_error" in f]
        tried = len(list(_files(networks, steps)))
        good = sum(error <= FLOAT_RELATIVE for error in errors)
        worst = f", worst {max(errors):.1e}" if errors else ""
        yield f"- fp32, {title}: {good} of {tried} within {FLOAT_RELATIVE:.0e}{worst}."
    for title, files in (
        ("trained", list(_files(trained, ["fp16"]))),
        ("random", list(_files(networks, [FP16]))),
    ):
        ratios = [f["snr_db"] for f in files if "snr_db" in f]
        if ratios:
            good, least = sum(r >= FP16_SNR_DB for r in ratios), min(ratios)
            kind = f"- fp16, {title} weights: {good} of {len(files)}"
            yield f"{kind} at least {FP16_SNR_DB:.0f} dB, least {least:.1f} dB."
    slow = max(((f["sample_s"], n) for n, f in _originals(networks)), default=None)
    peak = max(((r["peak_bytes"] / 1e9, n) for n, r in networks.items() if "peak_bytes" in r), default=None)
    if slow and peak:
        yield f"- A sample took at most {slow[0]:.2f} s ({slow[1]})."
        yield f"- Processes, converter included, peaked at {peak[0]:.1f} GB ({peak[1]})."


def _originals(networks: Results) -> Iterator[tuple[str, Results]]:
    for name, found in networks.items():
        file = found.get("files", {}).get(FP32[0], {})
        if "sample_s" in file:
            yield name, file


def _files(networks: Results, steps: Sequence[str]) -> Iterator[Results]:
    for found in networks.values():
        yield from (found["files"][step] for step in steps if step in found.get("files", {}))


def _trained(entries: Results) -> Iterator[str]:
    for name, found in sorted(entries.items()):
        for kind, file in found["files"].items():
            ratio = f"{file['snr_db']:.1f}" if "snr_db" in file else file.get("refused", file["status"])
            error = f"{file['relative_error']:.1e}" if "relative_error" in file else "-"
            yield f"| {name} | {found['inputs']} | {kind} | {ratio} | {error} |"


def _row(name: str, files: Results) -> str:
    cells = [_cell(files.get(step), "relative_error", ".1e") for step in FP32]
    first = files.get(FP32[0], {})
    ends = [_cell(files.get(FP16), "snr_db", ".1f"), _cell(first, "sample_s", ".2f")]
    return f"| {' | '.join([name, str(first.get('operators', '-')), *cells, *ends])} |"


def _cell(file: Results | None, key: str, form: str) -> str:
    if not file:
        return "-"
    return format(file[key], form) if key in file else "no"


def _causes(networks: Results) -> Iterator[tuple[str, str]]:
    for name, found in networks.items():
        if "reason" in found:
            yield name, found["reason"]
        for step, file in found.get("files", {}).items():
            cause = file.get("refused") or file.get("reason")
            if cause:
                yield f"{name}, {step}", cause
