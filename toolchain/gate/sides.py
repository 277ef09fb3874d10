"""The two sides of a comparison: a file that can be measured now, or figures of an earlier day.

A side is a model file, a result folder of ours (its file chosen for the budget), a stored record (`.json`),
or a git revision that holds the other side's file.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from toolchain.artifacts import FORMAT_OF, describe
from toolchain.contracts import Data, Runtime, Target
from toolchain.errors import InputError
from toolchain.plain import from_plain
from toolchain.report.record import chosen_artifact, chosen_measurement, read_record, reference_measurement
from toolchain.stages import Stages
from toolchain.values import Artifact, Measurement, Precision, Preprocessing, Program

_LFS: Final = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How sides become files: what runs them, and how a network that is not exported yet is exported."""

    target: Target
    runtime: str = "auto"
    precision: Precision = "fp32"
    data: str | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    arch: str | None = None
    input_shape: tuple[tuple[int, ...], ...] | None = None
    trust_pickle: bool = False


@dataclass(frozen=True, kw_only=True)
class Side:
    """`artifact` can be measured now; else `stored` was measured earlier. `label` is what the user named.

    `precision` is None for a file that came exported: its name does not tell.
    """

    label: str
    artifact: Artifact | None = None
    stored: Measurement | None = None
    precision: Precision | None = None
    data: Data | None = None


def open_candidate(path: Path, wishes: Wishes, stages: Stages) -> Side:
    """The side that is judged.

    Raises:
        CompressError: unreadable, or nothing that the target runs.
    """
    if not path.exists():
        raise InputError(f"no model at {path}", hint="name a model file, a result folder or a report.json")
    return _side(path, str(path), wishes, stages)


def open_baseline(text: str, candidate: Path, wishes: Wishes, stages: Stages) -> Side:
    """The side that it is judged against: a file or folder, or `REVISION` or `REVISION:FILE` of git.

    Raises:
        CompressError: as `open_candidate`; or neither a file nor a revision.
    """
    if Path(text).exists():
        return _side(Path(text), text, wishes, stages)
    revision, _, inside = text.partition(":")
    content = _at_revision(revision, inside, candidate)
    name = Path(inside or candidate.name).name
    folder = stages.root / "baseline"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    label = f"{revision}:{inside or name} ({_git(candidate, 'rev-parse', '--short', revision)[1].strip()})"
    return _side(folder / name, label, wishes, stages)


def _side(path: Path, label: str, wishes: Wishes, stages: Stages) -> Side:
    if path.suffix == ".json":
        return Side(label=label, stored=_stored(path, wishes))
    if path.is_dir() and path.suffix not in FORMAT_OF:
        record = read_record(path / "report.json")
        chosen = chosen_artifact(record)
        if chosen is None or not (path / chosen["path"]).exists():
            raise InputError(f"{path} holds no result file", hint="name the model file itself")
        return replace(_side(path / chosen["path"], label, wishes, stages), precision=chosen["precision"])
    if path.suffix in FORMAT_OF:
        return _exported(path, label, wishes)
    return _from_program(path, label, wishes, stages)


def _exported(path: Path, label: str, wishes: Wishes) -> Side:
    form = FORMAT_OF[path.suffix]
    runtime = next((r for r in wishes.target.runtimes if r.format == form), None)
    if runtime is None:
        raise InputError(f"target '{wishes.target.name}' does not run {path.suffix} files")
    if wishes.runtime not in ("auto", runtime.name):
        raise InputError(f"{path.name} runs in {runtime.name}, not in '{wishes.runtime}'")
    artifact = describe(path, format_name=form, runtime=runtime.name, precision=wishes.precision)
    return Side(label=label, artifact=artifact)


def _from_program(path: Path, label: str, wishes: Wishes, stages: Stages) -> Side:
    # Here and not above: two exported files are compared without loading torch.
    from toolchain.load import load
    from toolchain.train.data import open_data

    program = load(path, input_shape=wishes.input_shape, arch=wishes.arch, trust_pickle=wishes.trust_pickle)
    data = None
    if wishes.data is not None:
        data = open_data(wishes.data, preprocessing=wishes.preprocessing, program_inputs=program.inputs)
    artifact = built(program, data, path.name, wishes, stages)
    return Side(label=label, artifact=artifact, precision=wishes.precision, data=data)


def built(program: Program, data: Data | None, source: str, wishes: Wishes, stages: Stages) -> Artifact:
    """The network's file for the runtime and precision wished for; `source` says what it was made from.

    Raises:
        CompressError: the target has no such runtime, or the export fails.
    """
    from toolchain.assembly import FLOAT_OF, build, material_of, require_formats
    from toolchain.program.identity import fingerprint

    runtime = _runtime(wishes)
    require_formats((runtime.format,))
    if data is None and wishes.precision != FLOAT_OF[runtime.format]:
        raise InputError(f"{wishes.precision} needs calibration data", hint="give --data, or exported files")
    material = material_of(program, data, f"{source} {fingerprint(program)[:16]}")
    kind = (runtime.format, wishes.precision)
    return replace(build(program, [kind], stages, material)[kind], runtime=runtime.name)


def _runtime(wishes: Wishes) -> Runtime:
    """The engine asked for; the target's first one that can, when it is left open."""
    for runtime in wishes.target.runtimes:
        if wishes.runtime in ("auto", runtime.name) and wishes.precision in runtime.precisions:
            return runtime
    known = ", ".join(f"{r.name} ({', '.join(r.precisions)})" for r in wishes.target.runtimes)
    raise InputError(
        f"target '{wishes.target.name}' has no runtime '{wishes.runtime}' for {wishes.precision}",
        hint=f"known: {known}",
    )


def _stored(path: Path, wishes: Wishes) -> Measurement:
    """The measurement that a record of ours holds: a report's result, a bench's, a gate's candidate."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema = str(record.get("schema", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"cannot read {path} as a record of edgefit") from error
    if schema.startswith("edgefit.bench/") and "models" in record:
        return _of_bench(record, path, wishes)
    found = _of_gate(record) if schema.startswith("edgefit.gate/") else _of_report(path, wishes)
    if found is None:
        raise InputError(f"{path} holds no measurement", hint="made by compress, bench --json or gate")
    try:
        return from_plain(Measurement, dict(found))
    except ValueError as error:
        raise InputError(f"{path}: its measurement is unreadable: {error}") from error


def _of_gate(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (record.get("candidate") or {}).get("measurement")
    return found


def _of_bench(record: Mapping[str, Any], path: Path, wishes: Wishes) -> Measurement:
    """What `bench --device` measured: the record's one file of the runtime and precision wished for."""
    timed = [model for model in record["models"] if model.get("timing") is not None]
    mine = [
        model
        for model in timed
        if wishes.runtime in ("auto", model["runtime"]) and model["precision"] in (None, wishes.precision)
    ]
    if len(mine) != 1:
        raise InputError(
            f"{path} holds {len(mine)} measurements of the {wishes.runtime} runtime in {wishes.precision}",
            hint="choose one with --runtime and --precision" if timed else "an emulated device has no times",
        )
    (model,) = mine
    timing, conditions = model["timing"], model.get("conditions")
    if conditions is None:
        raise InputError(
            f"{path} does not say under which conditions", hint="measure again: edgefit bench --json"
        )
    spread = {
        f"{name}_{part}ms": timing[name][key]
        for name in ("p50", "p90")
        for part, key in (("", "value"), ("low_", "low"), ("high_", "high"))
    }
    single = {name: timing[name] for name in ("cpu_p50_ms", "load_ms", "first_ms", "samples_ms")}
    known = {"label": model["file"], "sha256": model["sha256"], "runtime": model["runtime"]}
    plain = {**known, **spread, **single, "conditions": conditions}
    try:
        return from_plain(Measurement, {**plain, "precision": model["precision"] or wishes.precision})
    except ValueError as error:
        raise InputError(f"{path}: its measurement is unreadable: {error}") from error


def _of_report(path: Path, wishes: Wishes) -> Mapping[str, Any] | None:
    record = read_record(path)
    if record["result"] is not None:
        return chosen_measurement(record)
    for entry in (record["baseline"] or {"measurements": []})["measurements"]:
        if wishes.runtime in ("auto", entry["runtime"]) and wishes.precision == entry["precision"]:
            return dict(entry)
    return reference_measurement(record)


def _at_revision(revision: str, inside: str, candidate: Path) -> bytes:
    """The file at a git revision: `inside` from the repository's root, or the candidate's own path."""
    ok, top = _git(candidate, "rev-parse", "--show-toplevel")
    known = ok and _git(candidate, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")[0]
    if not known:
        raise InputError(
            f"baseline '{revision}' is neither a file nor a git revision here",
            hint="a shallow clone has few revisions: fetch it first (git fetch origin REF)",
        )
    if not inside:
        inside = candidate.resolve().relative_to(Path(top.strip()).resolve()).as_posix()
    done = subprocess.run(
        ["git", "-C", str(candidate.parent), "show", f"{revision}:{inside}"], capture_output=True, check=False
    )
    if done.returncode != 0:
        raise InputError(f"git revision '{revision}' has no file {inside}", hint="--baseline REVISION:FILE")
    if done.stdout.startswith(_LFS):
        return _smudged(candidate, done.stdout)
    return done.stdout


def _smudged(candidate: Path, pointer: bytes) -> bytes:
    """The content that a Git LFS pointer stands for."""
    command = ["git", "-C", str(candidate.parent), "lfs", "smudge"]
    done = subprocess.run(command, input=pointer, capture_output=True, check=False)
    if done.returncode != 0 or done.stdout.startswith(_LFS):
        raise InputError("the baseline is kept in Git LFS and cannot be fetched", hint="git lfs fetch --all")
    return done.stdout


def _git(candidate: Path, *words: str) -> tuple[bool, str]:
    """(whether it went well, what it printed), in the repository that holds `candidate`."""
    try:
        done = subprocess.run(
            ["git", "-C", str(candidate.parent), *words], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return False, ""
    return done.returncode == 0, done.stdout
