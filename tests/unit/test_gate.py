"""`edgefit gate`: decisions on a device whose speed is known, sides, exit codes, outputs for CI."""

import json
import math
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.host import TARGET as HOST
from toolchain import cli
from toolchain.contracts import Checked, Runtime, Silent, Target
from toolchain.errors import InputError
from toolchain.gate.comparison import gate, threshold
from toolchain.gate.limits import Limits
from toolchain.gate.record import EXIT, GateRequest
from toolchain.gate.sides import Wishes
from toolchain.latency.intervals import Trial, summarise
from toolchain.latency.noise import Noise, identity_of, noise_file, noise_text
from toolchain.report.gate_ci import github_annotations, junit_xml
from toolchain.report.gate_text import gate_markdown, gate_text
from toolchain.values import Conditions

HERE = Conditions(
    device="fake", os="Linux 1", cpu="one", governor=None, frequency_mhz=None, load=None, threads=1,
    runtime="onnxruntime", runtime_version="1.0",
)  # fmt: skip


class Fake:
    """A device that needs for a file the milliseconds written in it; pairs share their disturbances."""

    def __init__(self, *, cpu=True, spread=0.005, conditions=HERE, later=(), seed=0):
        self.rng = np.random.default_rng(seed)
        self.cpu, self.spread, self.here, self.later = cpu, spread, conditions, list(later)
        self.calls = []

    def conditions(self, runtime, threads):
        return replace(self.here, runtime=runtime.name, threads=threads)

    def measure(self, artifacts, protocol, progress):
        self.calls.append([a.path.name for a in artifacts])
        shared = np.exp(0.3 * self.rng.standard_normal(protocol.trials))
        factor = self.later.pop(0) if self.later else 1.0
        found = []
        for number, artifact in enumerate(artifacts):
            ms = float(artifact.path.read_text()) * (factor if number == 0 else 1.0)
            own = ms * shared * np.exp(self.spread * self.rng.standard_normal(protocol.trials))
            trials = [
                Trial(wall_ms=(t * 1.1,) * 5, cpu_ms=(t,) * 5 if self.cpu else (), load_ms=1.0) for t in own
            ]
            runtime = Runtime(name=artifact.runtime, format="", precisions=())
            whole = summarise(
                trials, label=artifact.path.name, sha256=artifact.sha256, runtime=artifact.runtime,
                precision="fp32", conditions=self.conditions(runtime, 1),
            )  # fmt: skip
            found.append(
                replace(whole, peak_bytes=artifact.size_bytes * 1000 if len(artifacts) == 1 else None)
            )
        return tuple(found)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """request(candidate_ms, baseline_ms, device, **changes) for two files on a fake device."""
    monkeypatch.setenv("EDGEFIT_CACHE", str(tmp_path / "cache"))

    def request(candidate_ms, baseline_ms=1.0, device=None, **changes):
        device = device or Fake()
        target = Target(
            name="fake", summary="", runtimes=HOST.runtimes, connect=lambda: device, calibration=None
        )
        for name, ms in (("new.onnx", candidate_ms), ("old.onnx", baseline_ms)):
            (tmp_path / name).write_text(f"{ms}")
        return GateRequest(
            candidate=tmp_path / "new.onnx",
            baseline=str(tmp_path / "old.onnx"),
            wishes=Wishes(target=target),
            **{"seconds": 1.0, **changes},
        )

    return request


def verdict_of(record, name="latency"):
    return next(c["verdict"] for c in record["checks"] if c["name"] == name)


def test_a_slow_down_fails_after_a_rerun_of_its_own(asked):
    device = Fake()
    record = gate(asked(1.2, device=device), Silent())
    assert (record["verdict"], record["exit_code"]) == ("fail", 1)
    assert [course["answer"] for course in record["courses"]] == ["fail", "fail"]
    assert record["checks"][0]["value"] == pytest.approx(1.2, abs=0.01)
    assert record["checks"][0]["detail"] == "confirmed by a rerun"
    assert device.calls == [["new.onnx", "old.onnx"]] * 2
    assert record["clock"] == "cpu"


def test_equal_and_faster_models_pass_in_one_block(asked):
    for ms in (1.0, 0.7):
        device = Fake()
        record = gate(asked(ms, device=device), Silent())
        assert (record["verdict"], record["exit_code"], len(device.calls)) == ("pass", 0, 1)


def test_a_disturbance_that_is_gone_in_the_rerun_is_no_failure(asked):
    record = gate(asked(1.0, device=Fake(later=[1.5])), Silent())
    assert (record["verdict"], record["exit_code"]) == ("inconclusive", 10)
    assert "did not confirm" in record["checks"][0]["detail"]


@pytest.mark.parametrize(("counts_as", "code"), [("inconclusive", 10), ("pass", 0), ("fail", 1)])
def test_what_is_not_clear_counts_as_told(asked, counts_as, code):
    request = asked(1.1, device=Fake(spread=0.2, seed=1), seconds=1e-6, on_inconclusive=counts_as)
    record = gate(request, Silent())
    assert (record["verdict"], record["exit_code"]) == ("inconclusive", code)
    assert EXIT == {"pass": 0, "fail": 1, "inconclusive": 10}


def test_without_cpu_time_wall_time_decides_and_cpu_cannot_be_asked_for(asked):
    assert gate(asked(1.2, device=Fake(cpu=False)), Silent())["clock"] == "wall"
    assert gate(asked(1.2, clock="wall"), Silent())["clock"] == "wall"
    assert gate(asked(1.2, threads=2), Silent())["clock"] == "wall"
    with pytest.raises(InputError, match="does not tell the CPU time"):
        gate(asked(1.2, device=Fake(cpu=False), clock="cpu"), Silent())


def test_the_threshold_is_never_below_three_times_the_known_noise(asked, tmp_path):
    noise = Noise(
        ratio=0.05, blocks=9, seconds=1.0, model="m", clock="cpu", created="", identity=identity_of(HERE)
    )
    assert threshold(0.05, None) == 0.05
    assert threshold(0.05, noise) == pytest.approx(0.15)
    assert gate(asked(1.1), Silent())["verdict"] == "fail"
    path = noise_file(tmp_path / "cache", noise.identity)
    path.parent.mkdir(parents=True)
    path.write_text(noise_text(noise))
    record = gate(asked(1.1), Silent())
    assert (record["verdict"], record["checks"][0]["limit"]) == ("pass", pytest.approx(1.15))
    assert any("3 times the device's noise" in note for note in record["notes"])


def test_budget_size_and_memory_are_judged_where_asked(asked):
    limits = Limits(budget_ms=1.3, max_mb=1.0, max_growth=0.0, max_memory_mb=1.0, max_memory_growth=0.5)
    record = gate(asked(1.0, limits=limits), Silent())
    assert [c["name"] for c in record["checks"]] == [
        "latency", "budget", "file size", "file growth", "peak memory", "peak memory growth",
    ]  # fmt: skip
    over = gate(asked(1.0, limits=Limits(budget_ms=0.5, max_mb=1e-7, max_memory_mb=1e-5)), Silent())
    assert {c["name"] for c in over["checks"] if c["verdict"] == "fail"} == {
        "budget", "file size", "peak memory",
    }  # fmt: skip
    assert (over["verdict"], over["exit_code"]) == ("fail", 1)


def stored(tmp_path, record, name="stored.json"):
    path = tmp_path / name
    path.write_text(json.dumps(record))
    return str(path)


def benched(device, ms, **changes):
    """What `bench --device ... --json` writes of a file that takes so long on `device`."""
    from toolchain import benching
    from toolchain.contracts import Benched, BenchSettings, ModelFile

    settings = BenchSettings(tier=benching.TIERS["rapid"])
    took = [int(ms * 1.1e6)] * 8
    records = tuple(
        {"model": 0, "trial": t, "window": 0, "runs": 8, "wall_ns": took, "cpu_ns": took, "min_ns": took[0],
         "load_ns": 10, "first_ns": 10}
        for t in range(8)
    )  # fmt: skip
    found = Benched(
        device="fake", driver="", versions={}, before={}, after=None,
        **{"records": records, **changes},
    )  # fmt: skip
    file = ModelFile(path=Path("old.onnx"), runtime="onnxruntime", sha256="0" * 64)
    there = None if found.instructions is not None else device
    return benching._record([file], settings, found, HOST.runtimes, there)


def test_what_bench_measured_is_a_baseline_under_equal_conditions_only(asked, tmp_path):
    old = stored(tmp_path, benched(Fake(), 1.0))
    for ms, verdict in ((1.0, "pass"), (1.3, "fail")):
        record = gate(replace(asked(ms), baseline=old), Silent())
        assert record["verdict"] == verdict
        assert record["baseline"]["measurement"]["p50_ms"] == pytest.approx(1.1)
    for changed in ({"os": "Linux 2"}, {"runtime_version": "2.0"}, {"governor": "powersave"}, {"threads": 2}):
        other = Fake(conditions=replace(HERE, **changed))
        if "threads" in changed:
            other.conditions = lambda runtime, threads: replace(HERE, threads=2)
        elsewhere = stored(tmp_path, benched(other, 1.0))
        with pytest.raises(InputError, match=f"other conditions: {next(iter(changed))} "):
            gate(replace(asked(1.0), baseline=elsewhere), Silent())


def test_a_bench_without_times_or_of_several_files_is_no_baseline(asked, tmp_path):
    counted = stored(tmp_path, benched(Fake(), 1.0, records=(), instructions=((5, 5),)))
    with pytest.raises(InputError, match="holds 0 measurements"):
        gate(replace(asked(1.0), baseline=counted), Silent())
    twice = benched(Fake(), 1.0)
    twice["models"] *= 2
    with pytest.raises(InputError, match="holds 2 measurements"):
        gate(replace(asked(1.0), baseline=stored(tmp_path, twice)), Silent())
    old = benched(Fake(), 1.0)
    del old["models"][0]["conditions"]
    with pytest.raises(InputError, match="does not say under which conditions"):
        gate(replace(asked(1.0), baseline=stored(tmp_path, old)), Silent())


def test_instructions_are_compared_by_their_least_count(asked, monkeypatch):
    class Emulator:
        def check(self, files, progress):
            assert [file.path.name for file in files] == ["new.onnx", "old.onnx"]
            return tuple(Checked(parity=None, instructions=counts) for counts in ((1030, 1021), (1000, 1009)))

    asked_for = []
    monkeypatch.setattr("toolchain.reaching.connect", lambda name: asked_for.append(name) or Emulator())
    for limit, verdict in ((0.02, "fail"), (0.03, "pass")):
        limits = Limits(max_instructions=limit, emulated="qemu:cortex-a72")
        record = gate(asked(1.0, limits=limits), Silent())
        check = record["checks"][-1]
        assert (check["name"], check["verdict"], check["value"]) == ("instructions", verdict, 1.021)
        assert check["detail"] == "1,021 against 1,000 on qemu:cortex-a72, emulated: a count, no time"
        assert record["verdict"] == verdict
    assert asked_for == ["qemu:cortex-a72"] * 2


def test_a_device_is_reached_by_its_route(capsys, tmp_path):
    from toolchain.flags import parser_for
    from toolchain.gate.commands import gate_request

    words = ["a.onnx", "--baseline", "b.onnx", "--device"]
    found = gate_request(parser_for("gate", "gate").read([*words, "host"])).wishes.target
    assert {runtime.name for runtime in found.runtimes} == {"onnxruntime", "litert"}
    assert found.connect().conditions(found.runtimes[0], 1).device == "host"
    assert cli.main(["gate", *words, "qemu:cortex-a53"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: qemu:cortex-a53 has no clock")
    assert cli.main(["gate", *words, "nowhere:x"]) == 2
    assert "unknown device 'nowhere'" in capsys.readouterr().err


def test_stored_figures_are_taken_under_equal_conditions_only(asked, tmp_path):
    old = stored(tmp_path, gate(asked(1.0), Silent()))
    request = replace(asked(2.0), baseline=old)
    record = gate(request, Silent())
    assert (record["verdict"], record["courses"]) == ("fail", [])
    assert "not measured in turns" in record["checks"][0]["detail"]
    elsewhere = replace(asked(2.0, device=Fake(conditions=replace(HERE, os="Linux 2"))), baseline=old)
    with pytest.raises(InputError, match=r"other conditions: os \(Linux 1 against Linux 2\)"):
        gate(elsewhere, Silent())
    both = replace(request, candidate=Path(stored(tmp_path, gate(asked(1.01), Silent()), "new.json")))
    assert gate(both, Silent())["candidate"]["size_bytes"] is None
    with pytest.raises(InputError, match="--max-mb needs model files"):
        gate(replace(both, limits=Limits(max_mb=1.0)), Silent())


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def test_a_baseline_of_a_git_revision_is_the_candidates_file_there(asked, tmp_path):
    request = asked(1.0)
    git(tmp_path, "init", "-q", "-b", "trunk")
    git(tmp_path, "add", "new.onnx", "old.onnx")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "new.onnx").write_text("1.2")
    same_path = gate(replace(request, baseline="trunk"), Silent())
    assert same_path["verdict"] == "fail"
    assert same_path["baseline"]["label"].startswith("trunk:new.onnx (")
    named = gate(replace(request, baseline="HEAD:old.onnx"), Silent())
    assert named["baseline"]["measurement"]["label"] == "old.onnx"
    with pytest.raises(InputError, match="neither a file nor a git revision"):
        gate(replace(request, baseline="nowhere"), Silent())
    with pytest.raises(InputError, match=r"has no file gone\.onnx"):
        gate(replace(request, baseline="trunk:gone.onnx"), Silent())


def test_lfs_pointers_are_not_taken_for_models(asked, tmp_path):
    request = asked(1.0)
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "new.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    git(tmp_path, "add", "new.onnx")
    git(tmp_path, "commit", "-q", "-m", "first")
    with pytest.raises(InputError, match="Git LFS"):
        gate(replace(request, baseline="trunk"), Silent())


def test_texts_for_people_and_machines_say_the_same(asked):
    record = gate(asked(1.2, limits=Limits(budget_ms=0.5, max_mb=10)), Silent())
    json.dumps(record, allow_nan=False)
    for text in (gate_text(record), gate_markdown(record)):
        assert "FAIL" in text
        assert "confirmed by a rerun" in text
    root = ET.fromstring(junit_xml(record))
    suite = root.find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "2", "0")
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failed == ["latency", "budget"]
    lines = github_annotations(record).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error"]
    assert "title=edgefit gate%3A FAIL latency::latency: 1." in lines[0]
    assert "95 %25:" in lines[0]
    assert "%:" not in lines[0]


def test_unclear_gates_are_skipped_in_junit_and_warnings_in_annotations(asked):
    record = gate(asked(1.1, device=Fake(spread=0.2, seed=1), seconds=1e-6), Silent())
    suite = ET.fromstring(junit_xml(record)).find("testsuite")
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    assert github_annotations(record).startswith("::warning ")
    strict = {**record, "exit_code": 1}
    assert ET.fromstring(junit_xml(strict)).find("testsuite").get("failures") == "1"


def test_control_characters_and_line_ends_cannot_break_the_outputs(asked):
    record = gate(asked(1.2), Silent())
    bad = {
        **record,
        "notes": ["a\x00b <&> \ud800"],
        "candidate": {**record["candidate"], "label": "x\n::error::y"},
    }
    ET.fromstring(junit_xml(bad))
    assert len(github_annotations(bad).splitlines()) == 1


def test_the_command_writes_its_files_and_gives_the_code(tmp_path, capsys, monkeypatch):
    """Two real ONNX files on this machine: one convolution against forty of them."""
    pytest.importorskip("onnxruntime")
    from tests.contract.test_targets import small_onnx

    monkeypatch.setenv("EDGEFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    small, large = (small_onnx(tmp_path / f"{n}.onnx", width=n).path for n in (4, 512))
    out = tmp_path / "gate"
    words = ["gate", str(large), "--baseline", str(small), "--out", str(out), "--quiet"]
    assert cli.main(words) == 1
    said = capsys.readouterr().out
    assert said.startswith("FAIL  ")
    assert "::error title=" in said
    assert sorted(p.name for p in out.iterdir()) == ["gate.json", "gate.md", "junit.xml"]
    record = json.loads((out / "gate.json").read_text())
    assert record["schema"] == "edgefit.gate/1"
    assert math.isclose(record["checks"][0]["limit"], 1.05)
    turned = [
        "gate",
        str(small),
        "--baseline",
        str(small),
        "--out",
        str(out),
        "--quiet",
        "--annotate",
        "none",
    ]
    more = ["--max-regression", "100", "--max-memory-growth", "900", "--min-agreement", "100"]
    assert cli.main([*turned, *more]) == 0
    checks = json.loads((out / "gate.json").read_text())["checks"]
    assert [c["name"] for c in checks] == ["latency", "peak memory growth", "agreement"]
    assert checks[2]["detail"] == "of 256 random inputs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.onnx", "--baseline", "x"], "no model at gone.onnx"),
        (["a.onnx", "--baseline", "gone.onnx"], "neither a file nor a git revision"),
        (["a.onnx", "--baseline", "a.onnx", "--target", "iphone"], "a gate measures"),
        (["a.onnx", "--baseline", "a.onnx", "--runtime", "litert"], "runs in onnxruntime"),
        (["a.onnx", "--baseline", "a.onnx", "--max-regression", "-1"], "--max-regression"),
        (["a.json", "--baseline", "a.onnx"], "cannot read a.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.onnx").write_bytes(b"x")
    Path("a.json").write_text("[")
    assert cli.main(["gate", *words, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1
    assert not Path("gate").exists()
