"""Flags -> Request; Report -> text; error -> one line and an exit code."""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toolchain import __version__
from toolchain.cases import requests_of
from toolchain.errors import CompressError, InputError
from toolchain.flags import parser_for, request_of
from toolchain.help_texts import COMMANDS, EXIT_CODES
from toolchain.processes import helping
from toolchain.screen import only_ours, progress_on

if TYPE_CHECKING:
    from toolchain.values import Report, Request

INTERNAL: Final = 70
INTERRUPTED: Final = 130
_USAGE: Final = (
    "usage: edgefit COMMAND ...\n\n{commands}\n\nedgefit COMMAND --help shows its flags.\n\n{exits}"
)
_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_LAST: Final = 4.0
"""Seconds in which the first of several processes has said what went wrong."""
Outcome = tuple[str, int]


def compress(words: Sequence[str] | None = None) -> int:
    """The console script `compress`: `edgefit compress` under a shorter name."""
    return _guarded(["compress", *(sys.argv[1:] if words is None else words)], prog="compress")


def main(words: Sequence[str] | None = None) -> int:
    """The console script `edgefit`. Returns the exit code."""
    return _guarded(list(sys.argv[1:] if words is None else words), prog="edgefit")


def _guarded(words: list[str], *, prog: str) -> int:
    """Run; of several processes the first ends first: when one has failed, `torchrun` stops the others."""
    code = _outcome(words, prog)
    if helping() and code not in (0, INTERRUPTED):
        time.sleep(_LAST)
    return code


def _outcome(words: list[str], prog: str) -> int:
    """Run; whatever goes wrong becomes `error:` and `hint:` on stderr and a documented exit code."""
    debug = "--debug" in words
    try:
        text, code = _dispatch(words, prog)
        _show(text)
        return code
    except CompressError as error:
        return _complain(error.message, error.hint, error.exit_code, debug)
    except KeyboardInterrupt:
        hint = "finished stages are kept: the same command continues"
        return _complain("interrupted", hint, INTERRUPTED, debug)
    except MemoryError:
        return _complain("out of memory", "a smaller --batch-size needs less", INTERNAL, debug)
    except OSError as error:
        if error.errno in _DISK:
            where = f" {error.filename}" if error.filename else ""
            hint = "choose a place that is writable and has space left"
            return _complain(f"cannot write{where}: {error.strerror}", hint, InputError.exit_code, debug)
        return _complain(f"internal error: {_one_line(error)}", _RERUN, INTERNAL, debug)
    except Exception as error:  # noqa: BLE001  the last seam: users get a line, --debug gets the traceback
        return _complain(f"internal error: {_one_line(error)}", _RERUN, INTERNAL, debug)


_RERUN: Final = "this is a fault in edgefit: rerun with --debug and report what it shows"


def _dispatch(words: list[str], prog: str) -> Outcome:
    """Find the sub-command and run it: (text for stdout, exit code)."""
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS)) + 2
        lines = "\n".join(f"  {name:<{width}}{what}" for name, what in COMMANDS.items())
        return _USAGE.format(commands=lines, exits=EXIT_CODES), 0
    if words[0] == "--version":
        return f"edgefit {__version__}\n", 0
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, list(COMMANDS), n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(f"unknown command '{name}'", hint=f"{hint}known: {', '.join(COMMANDS)}")
    parser = parser_for(name, "compress" if prog == "compress" else f"edgefit {name}")
    try:
        flags = parser.read(words[1:])
    except SystemExit as finished:  # --help and --version print and leave
        return "", int(finished.code or 0)
    run: Callable[[argparse.Namespace, str], Outcome] = _COMMANDS.get(name, _run_pipeline)
    return run(flags, name)


def _run_pipeline(flags: argparse.Namespace, name: str) -> Outcome:
    """compress, bench and plan: they make a report, of several cases one for all."""
    from toolchain.report.front_text import render_front_summary
    from toolchain.report.summary import render_summary

    requests = (request_of(flags, name),) if name == "bench" else requests_of(flags, name)
    request = requests[0]
    trains = name == "compress" or request.plan is not None
    if helping():
        return "", _help(request, debug=flags.debug) if trains else 0
    with (
        only_ours(debug=flags.debug) as stderr,
        progress_on(stderr, quiet=flags.quiet) as progress,
        ExitStack() as stack,
    ):
        from toolchain import pipeline
        from toolchain.front import front
        from toolchain.train.crew import leading

        if trains:
            stack.enter_context(leading())
        if len(requests) > 1:
            found = front(requests, name, progress)
            text = render_front_summary(found.record, out=str(request.out.parent))
            return _as_json(found.record) if flags.json else text, found.exit_code
        runners: Mapping[str, Callable[..., Report]] = {
            "compress": pipeline.compress,
            "bench": pipeline.bench,
            "plan": pipeline.plan if request.plan is None else pipeline.compress,
        }
        report = runners[name](request, progress)
    out = None if name == "bench" else str(request.out)
    return _as_json(report.record) if flags.json else render_summary(report.record, out=out), report.exit_code


def _help(request: Request, *, debug: bool) -> int:
    """One of several processes that is not the first: Ctrl-C is for that one, which ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with only_ours(debug=debug) as stderr:
        from toolchain import pipeline

        try:
            return pipeline.help_training(request)
        except CompressError as error:
            stderr.write(f"error: {_flat(error.message)}\n")
            return error.exit_code


def _run_bench(flags: argparse.Namespace, name: str) -> Outcome:
    """A report of a network on a target; with a device, a tier or a model file, that file measured there."""
    device_given = any(x is not None for x in (flags.device, flags.tier, flags.cadence_hz, flags.max_celsius))
    if not device_given and flags.model.suffix not in (".onnx", ".tflite"):
        return _run_pipeline(flags, name)
    from toolchain.listings import bench_text

    with only_ours(debug=flags.debug) as stderr, progress_on(stderr, quiet=flags.quiet) as progress:
        from toolchain.benching import bench_on_device

        found = bench_on_device(
            request_of(flags, name),
            device=flags.device or "host",
            tier=flags.tier or "quick",
            cadence_hz=flags.cadence_hz,
            max_celsius=flags.max_celsius,
            progress=progress,
        )
    return _as_json(found) if flags.json else bench_text(found), 0


def _run_inspect(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.listings import inspection_text

    with only_ours(debug=flags.debug):
        from toolchain import pipeline

        found = pipeline.inspect(request_of(flags, name), picture=flags.picture)
    return _as_json(found) if flags.json else inspection_text(found), 0


def _run_predict(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.listings import prediction_text

    with only_ours(debug=flags.debug):
        from toolchain.prediction import prediction

        found = prediction(
            request_of(flags, name),
            threads=flags.threads,
            require_measured=flags.require_measured,
            calibration=flags.calibration,
        )
    return _as_json(found) if flags.json else prediction_text(found), found["exit_code"]


def _run_calibrate(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.listings import calibration_text

    with only_ours(debug=flags.debug):
        from toolchain.prediction import calibrate

        found = calibrate(request_of(flags, name), threads=flags.threads)
    return _as_json(found) if flags.json else calibration_text(found), 0


def _run_targets(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.doctor import targets
    from toolchain.listings import targets_text

    with only_ours(debug=flags.debug):
        found = targets()
    return _as_json(found) if flags.json else targets_text(found), 0


def _run_devices(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.doctor import devices
    from toolchain.listings import devices_text

    with only_ours(debug=flags.debug):
        found = devices()
    return _as_json(found) if flags.json else devices_text(found), 0


def _run_doctor(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.doctor import doctor, needs
    from toolchain.listings import doctor_text, needs_text

    with only_ours(debug=flags.debug):
        found = doctor() if flags.target is None else needs(flags.target)
    text = doctor_text if flags.target is None else needs_text
    missing = any(not need["found"] for need in found.get("needs", ()))
    return _as_json(found) if flags.json else text(found), int(missing)


def _run_runner(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.listings import bundle_text

    with only_ours(debug=flags.debug):
        from targets._shared.bundling import bundle

        out = flags.out or Path(f"edgefit-runner-{flags.arch}")
        found = {**bundle(flags.arch, flags.runtime, out), "written": str(out)}
    return _as_json(found) if flags.json else bundle_text(found), 0


def _run_embed(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.embed import embed, embed_text

    with only_ours(debug=flags.debug):
        found = embed(
            flags.model,
            flags.out,
            name=flags.name,
            form=flags.form,
            align=flags.align,
            micro=flags.micro,
            budget_ram=flags.budget_ram,
        )
    missed = found.get("micro", {}).get("held") is False
    if missed:
        need, limit = found["micro"]["arena_bytes"], flags.budget_ram
        _complain(f"{found['model']} needs an arena of {need:,} bytes, {limit:,} are allowed", "", 1, False)
    return _as_json(found) if flags.json else embed_text(found), int(missed)


def _run_restore(flags: argparse.Namespace, name: str) -> Outcome:
    from toolchain.store.container import restore_file

    source: Path = flags.stored
    path = flags.out or source.with_suffix("" if source.suffix == ".stored" else source.suffix + ".restored")
    found = restore_file(source, path)
    sizes = f"{found['bytes']:,} bytes of {found['stored_bytes']:,}"
    text = f"{found['written']}: {sizes}, sha256 {found['sha256']}\n"
    return _as_json(found) if flags.json else text, 0


def _run_gate(flags: argparse.Namespace, name: str) -> Outcome:
    """gate, noise and history."""
    from toolchain.gate.commands import RUNNERS

    return RUNNERS[name](flags)


_COMMANDS: Final = {
    "bench": _run_bench,
    "embed": _run_embed,
    "gate": _run_gate,
    "noise": _run_gate,
    "history": _run_gate,
    "inspect": _run_inspect,
    "predict": _run_predict,
    "calibrate": _run_calibrate,
    "targets": _run_targets,
    "devices": _run_devices,
    "doctor": _run_doctor,
    "restore": _run_restore,
    "runner": _run_runner,
}


def _as_json(record: object) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _show(text: str) -> None:
    """Write to stdout; a reader that went away (`| head`) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, hint: str, code: int, debug: bool) -> int:
    """Two lines at most on stderr, and the traceback with --debug; of several processes the first speaks."""
    if debug:
        traceback.print_exc()
    if helping():
        return code
    sys.stderr.write(f"error: {_flat(message)}\n")
    if hint:
        sys.stderr.write(f"hint: {_flat(hint)}\n")
    return code


def _flat(text: str) -> str:
    return " ".join(str(text).split())


def _one_line(error: BaseException, limit: int = 200) -> str:
    """The kind of an unforeseen error and the beginning of what it says."""
    text = _flat(str(error))
    return f"{type(error).__name__}: {text[:limit]}{'...' if len(text) > limit else ''}"


def _entry(run: Callable[[], int]) -> Any:
    raise SystemExit(run())


if __name__ == "__main__":
    _entry(main)
