"""The emulated Arm core: exact counts, outputs of the Arm kernels, and no time anywhere."""

import json
import subprocess
from dataclasses import replace

import pytest

from targets._routes import qemu
from targets._routes.qemu import ROUTE, Emulated
from targets._shared.parity import outputs_here, parity
from targets._shared.sysroot import CORES, sysroot
from tests.runners import small_onnx, small_tflite
from toolchain import benching, cli
from toolchain.contracts import BenchSettings, Silent
from toolchain.errors import DeviceError

SETTINGS = BenchSettings(tier=benching.TIERS["rapid"])


@pytest.fixture
def core():
    """An emulated core, or a skip with what is missing here."""
    for need in qemu._needs():
        if not need.found:
            pytest.skip(f"no {need.name}: {need.hint}")
    try:
        qemu.fetch_library("litert", "aarch64")
    except DeviceError as error:
        pytest.skip(error.message)
    return Emulated(core="cortex-a53", runs=6)


def test_counts_repeat_exactly_and_outputs_are_those_of_this_machine(core, tmp_path):
    file = benching._given(small_tflite(tmp_path / "a.tflite"), core.runtimes)
    first, second = (core.bench([file], SETTINGS, Silent()) for _ in range(2))
    (counts,) = first.instructions
    assert len(counts) == 6
    assert len(set(counts)) == 1
    assert counts[0] > 10_000
    assert first.instructions == second.instructions
    assert first.records == ()
    (parity,) = first.parity
    assert parity["max_relative"] <= 1e-5


def test_every_session_has_inputs_and_outputs_of_its_own(core, tmp_path):
    file = benching._given(small_tflite(tmp_path / "a.tflite"), core.runtimes)
    library = qemu.fetch_library("litert", "aarch64")
    one, three = (core.outputs(file, library, sessions) for sessions in (1, 3))
    assert three[: len(one)] == one
    parts = {three[start : start + len(one)] for start in range(0, len(three), len(one))}
    assert len(parts) == 3
    assert parity(three, outputs_here(file, 3))["max_relative"] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", CORES)
def test_onnxruntime_runs_on_every_core(core, tmp_path, name):
    file = benching._given(small_onnx(tmp_path / "a.onnx"), core.runtimes)
    found = replace(core, core=name).bench([file], SETTINGS, Silent())
    assert min(found.instructions[0]) > 1000
    assert found.parity[0]["max_relative"] <= 1e-5


def test_the_record_has_no_time(core, tmp_path, capsys):
    path = small_tflite(tmp_path / "a.tflite")
    assert cli.main(["bench", str(path), "--device", "qemu:cortex-a53", "--json", "--quiet"]) == 0
    text = capsys.readouterr().out
    (model,) = json.loads(text)["models"]
    assert model["timing"] is None
    assert model["instructions"]["min"] == model["instructions"]["max"]
    assert "_ms" not in text
    assert cli.main(["bench", str(path), "--device", "qemu:cortex-a53", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "no time was measured" in text
    assert " ms" not in text


def test_a_corrupt_model_is_one_line(core, tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"not a model")
    file = benching._given(tmp_path / "a.tflite", core.runtimes)
    with pytest.raises(DeviceError, match=r"a\.tflite"):
        core.bench([file], SETTINGS, Silent())


@pytest.mark.parametrize("change", [{"threads": 2}, {"cadence_hz": 30.0}, {"max_celsius": 40.0}])
def test_what_needs_a_clock_is_refused(change):
    with pytest.raises(DeviceError, match="one thread and no clock"):
        Emulated(core="cortex-a53").bench([], replace(SETTINGS, **change), Silent())


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(qemu.shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match="needs qemu-aarch64") as caught:
        Emulated(core="cortex-a53").bench([], SETTINGS, Silent())
    assert caught.value.hint == "apt-get install qemu-user"
    assert all(device.missing and device.hint for device in ROUTE.found())


def test_an_unknown_core_names_those_there_are():
    with pytest.raises(DeviceError, match="qemu:max") as caught:
        ROUTE.open("max")
    assert "qemu:cortex-a53" in caught.value.hint


@pytest.mark.parametrize("name", CORES)
def test_the_machine_describes_one_core(name, tmp_path):
    root = sysroot(name, tmp_path)
    text = (root / "proc/cpuinfo").read_text()
    assert text.count("processor") == 1
    assert f"CPU part\t: {CORES[name].part}\n" in text
    sizes = sorted(p.read_text() for p in (root / "sys/devices/system/cpu/cpu0/cache").glob("*/size"))
    core = CORES[name]
    assert sizes == sorted(f"{kb}K\n" for kb in (core.data_kb, core.code_kb, core.second_kb))
    assert sysroot(name, tmp_path) == root


def test_the_counter_builds_for_every_interface(tmp_path):
    if not qemu.shutil.which("cc"):
        pytest.skip("no C compiler")
    for _, interface in qemu._INTERFACES:
        path = tmp_path / f"{interface}.so"
        qemu._compile(interface, path)
        symbols = subprocess.run(["nm", "-D", path], capture_output=True, text=True, check=False).stdout
        assert "qemu_plugin_install" in symbols
        assert "qemu_plugin_version" in symbols
