"""The seam of the command line: what is printed where, which exit code follows, what stays hidden."""

import contextlib
import errno
import os
import subprocess
import sys
import warnings

import pytest

from toolchain import cli, errors
from toolchain.screen import Lines, only_ours, progress_on


def fails_with(monkeypatch, error):
    def run(flags, name):
        raise error

    monkeypatch.setattr(cli, "_COMMANDS", {"doctor": run})
    return cli.main(["doctor"])


LEAVES = [
    errors.InputError,
    errors.UnsupportedError,
    errors.BudgetError,
    errors.ConversionError,
    errors.DeviceError,
    errors.Interrupted,
]


@pytest.mark.parametrize("kind", LEAVES)
def test_every_class_of_error_has_its_code(kind, monkeypatch, capsys):
    assert fails_with(monkeypatch, kind("what\nwhere", hint="do this")) == kind.exit_code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: what where\nhint: do this\n")
    assert f"  {kind.exit_code:<4} " in cli.EXIT_CODES


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("a\nb " + "x" * 500), 70, "internal error: RuntimeError: a b x"),
        (OSError(errno.ENOSPC, "No space left on device", "/out/a"), 2, "cannot write /out/a: No space left"),
        (OSError(errno.EIO, "I/O error"), 70, "internal error"),
        (MemoryError(), 70, "out of memory"),
    ],
)
def test_what_is_not_ours_becomes_one_line(error, code, said, monkeypatch, capsys):
    assert fails_with(monkeypatch, error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]
    assert all(len(line) < 300 for line in err.splitlines())


def test_debug_shows_the_traceback(monkeypatch, capsys):
    def run(flags, name):
        raise RuntimeError("boom")

    monkeypatch.setattr(cli, "_COMMANDS", {"doctor": run})
    assert cli.main(["doctor", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_unknown_command_gets_a_suggestion(capsys):
    assert cli.main(["compres", "m.pt2"]) == 2
    assert "did you mean 'compress'?" in capsys.readouterr().err


def test_no_command_lists_all(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)


def test_noise_of_libraries_stays_hidden(capfd):
    with only_ours(debug=False) as stderr, progress_on(stderr, quiet=False) as progress:
        progress.stage("ours")
        sys.stdout.write("python noise")
        sys.stderr.write("python noise")
        warnings.warn("noise", stacklevel=1)
        os.write(1, b"native noise")
        os.write(2, b"native noise")
        subprocess.run([sys.executable, "-c", "print('noise of a child')"], check=True)
    os.write(2, b"after\n")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "ours\nafter\n")


def test_descriptors_come_back_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), only_ours(debug=False):
        _ = 1 / 0
    sys.stdout.write("visible\n")
    assert capfd.readouterr().out == "visible\n"


def test_quiet_says_nothing(capfd):
    with only_ours(debug=False) as stderr, progress_on(stderr, quiet=True) as progress:
        progress.stage("ours")
        progress.step(1, 2)
    assert capfd.readouterr() == ("", "")


def test_lines_name_a_stage_once(capsys):
    lines = Lines(sys.stderr)
    for title in ("a", "a", "b"):
        lines.stage(title)
        lines.step(1, 3)
    assert capsys.readouterr().err == "a\nb\n"


def test_bars_on_a_terminal():
    """A pseudo-terminal gets bars, the stages' names and their times."""
    import pty

    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream, progress_on(stream, quiet=False) as progress:
        progress.stage("Exporting")
        progress.step(1, 2, "file")
        progress.stage("Verifying")
    text = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal's stream with EIO
        while chunk := os.read(ours, 1 << 16):
            text += chunk
    os.close(ours)
    text = text.decode()
    assert "Exporting" in text
    assert "Verifying" in text


HEAVY = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "coremltools",
    "litert_torch",
    "ai_edge_litert",
    "rich",
    "jax",
)


@pytest.mark.parametrize(
    "words", [["compress", "--help"], ["--help"], ["bench", "--help"], ["compress", "m.pt2"]]
)
def test_help_and_refusals_load_no_heavy_library(words):
    program = (
        "import sys\nfrom toolchain.cli import main\n"
        f"main({words!r})\nprint('LOADED', *(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m toolchain.cli --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
