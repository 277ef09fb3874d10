"""The iPhone's driver against what devicectl, go-ios and pymobiledevice3 are known to say (tests/iphones.py).

No phone and none of the three programs was there: the stand-ins show what the driver asks for and what it
makes of answers and complaints, not that they are given.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from targets._routes import iphone
from targets._routes.iphone import ROUTE, _open
from targets._shared.parcel import pack
from targets._shared.phone_runs import APP_VERSION, NOBODY, _alone
from targets._shared.phone_tools import CAUSES, GoneError, complaint
from tests.iphones import DEVICE, OTHER, UDID, Phone
from toolchain import benching, cli, registry
from toolchain.artifacts import describe
from toolchain.contracts import Sampling, Silent, Target
from toolchain.errors import CompressError, DeviceError, InputError
from toolchain.reaching import reached

TOOLS = ("xcrun", "ios", "pymobiledevice3")
SHORT = Sampling(trials=2, runs=5, warmup=1, trial_seconds=0.1)


@pytest.fixture
def reach(tmp_path, monkeypatch):
    """A phone that one of the programs reaches: `reach(program, ...)` makes it, with what it is like."""
    monkeypatch.setenv("EDGEFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def make(program="ios", **settings):
        phone = Phone(tmp_path / "phone")
        phone.make(program, **settings)
        monkeypatch.setenv("PATH", f"{phone.root}/bin:/usr/bin:/bin")
        return phone

    return make


def quick(opened, **settings):
    """The opened phone, asked often."""
    hurry = {"sleep": lambda seconds: time.sleep(min(seconds, 0.05)), "silence_seconds": 3.0, **settings}
    return replace(opened, handset=replace(opened.handset, **hurry))


@pytest.fixture
def package(tmp_path):
    """Something of a package's form; what is in it, no stand-in reads."""
    folder = tmp_path / "net $(touch hacked).mlpackage"
    (folder / "Data/com.apple.CoreML/weights").mkdir(parents=True)
    (folder / "Manifest.json").write_text("{}")
    (folder / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"mil\n\n")
    (folder / "Data/com.apple.CoreML/weights/weight.bin").write_bytes(bytes(range(256)) * 64)
    return folder


def artifact(package: Path):
    return describe(package, format_name="coreml", runtime="coreml", precision="fp16")


@pytest.mark.parametrize("program", TOOLS)
def test_a_package_is_measured(reach, package, program, capsys, tmp_path):
    phone = reach(program)
    words = [
        "bench",
        str(package),
        "--target",
        "iphone",
        "--device",
        f"iphone:{UDID}",
        "--tier",
        "rapid",
        "--json",
    ]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    (model,) = found["models"]
    assert found["device"] == f"iphone:{UDID}"
    assert found["driver"].startswith(f"iPhone runner {APP_VERSION}, ")
    assert (model["runtime"], model["runtime_version"]) == ("coreml", "iOS 17.0")
    timing = model["timing"]
    assert timing["runs"] >= 64
    assert len(timing["samples_ms"]) == 8
    assert timing["cpu_p50_ms"] is None
    assert model["placement"]["away"] == [{"name": "x_1", "kind": "ios17.cast", "device": "CPU"}]
    assert found["before"]["thermal_state"] == "nominal"
    assert found["before"]["governor"] is None
    assert model["conditions"]["governor"] == "compute units all"
    assert [call.split()[0] for call in phone.calls()].count("launch") == 1
    assert not list(tmp_path.rglob("hacked"))
    assert cli.main(words[:-1]) == 0
    assert "1 of 66 operators left Neural Engine: 1 ios17.cast (x_1)" in capsys.readouterr().out


def test_every_run_is_a_new_one(reach, package):
    """Results stay on the phone until the next job: an old one is not a new one's."""
    phone = reach()
    opened = quick(_open(""))
    first, second = (opened.measure([artifact(package)], SHORT, Silent())[0] for _ in range(2))
    assert first.samples_ms != second.samples_ms
    assert len(phone.calls("launch")) == 2
    assert len(list(phone.documents.glob("*.result.json"))) == 1


def test_it_is_a_device(reach, package, tmp_path):
    reach("xcrun", saving=True)
    opened = quick(_open(UDID))
    other = tmp_path / "other.mlpackage"
    other.mkdir()
    (other / "Manifest.json").write_text("{}")
    a, b = opened.measure([artifact(package), artifact(other)], SHORT, Silent())
    assert (a.label, b.label) == (package.name, "other.mlpackage")
    assert [len(trial) for trial in a.samples_ms] == [5, 5]
    assert a.cpu_trials_ms == ()
    assert a.conditions.governor == "compute units all, low power mode"
    assert a.conditions.cpu == opened.conditions(opened.runtimes[0], 1).cpu == "iPad14,3"
    assert a.placement is not None
    assert a.placement.operators == 66
    assert opened.measure([], SHORT, Silent()) == ()
    assert opened.probe(opened.runtimes[0], "fp16", [None], threads=1, progress=Silent()) == (None,)
    (checked,) = opened.check([benching._given(package, opened.runtimes)], Silent())
    assert checked.parity is None


COMPLAINTS = [
    ("xcrun", "launch", "locked", "is locked", "Auto-Lock"),
    ("xcrun", "launch", "untrusted", "does not trust the developer", "VPN & Device Management"),
    ("xcrun", "launch", "not installed", "has no runner app", "targets/iphone/Runner"),
    ("xcrun", "push", "no app", "has no runner app", "targets/iphone/Runner"),
    ("xcrun", "ask", "gone", "is not there", "edgefit devices"),
    ("ios", "push", "no app", "has no runner app", "targets/iphone/Runner"),
    ("ios", "launch", "no services", "lets no program be started", "ios tunnel start"),
    ("ios", "ask", "unpaired", "needs a phone that does not trust this computer", "tap Trust"),
    ("ios", "list", "no usbmuxd", "no usbmuxd", "apt-get install usbmuxd"),
    ("ios", "push", "gone", "is not there", "edgefit devices"),
    ("pymobiledevice3", "launch", "no tunnel", "lets no program be started", "mounter auto-mount"),
    ("pymobiledevice3", "launch", "locked", "is locked", "Auto-Lock"),
    ("pymobiledevice3", "launch", "no developer mode", "developer mode off", "Privacy & Security"),
    ("pymobiledevice3", "ask", "unpaired", "does not trust this computer", "tap Trust"),
    ("pymobiledevice3", "push", "no app", "has no runner app", "targets/iphone/Runner"),
]


@pytest.mark.parametrize(("program", "step", "complaint", "message", "hint"), COMPLAINTS)
def test_what_is_wrong_is_one_clear_line(reach, package, program, step, complaint, message, hint):
    phone = reach(program, says={step: complaint})
    with pytest.raises(DeviceError, match=message) as caught:
        quick(_open(UDID), patience_seconds=0.0).measure([artifact(package)], SHORT, Silent())
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    assert not phone.calls("launch") or step == "launch"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"connectionProperties": {"pairingState": "unpaired"}}, "needs its trust"),
        (
            {"connectionProperties": {"pairingState": "paired", "tunnelState": "unavailable"}},
            "needs a connection",
        ),
        ({"deviceProperties": {"developerModeStatus": "disabled"}}, "needs developer mode"),
    ],
)
def test_a_phone_that_is_listed_is_not_yet_one_that_can_be_used(reach, changes, message):
    reach("xcrun", device=DEVICE | changes)
    with pytest.raises(DeviceError, match=message) as caught:
        _open(UDID)
    assert caught.value.hint
    (seen,) = ROUTE.found()
    assert message.removeprefix("needs ") in seen.missing
    with pytest.raises(DeviceError, match="reaches 0 iPhones"):
        _open("")


def test_a_lock_is_seen_before_anything_is_sent(reach, package):
    phone = reach("xcrun", locked=True)
    with pytest.raises(DeviceError, match="is locked"):
        quick(_open(UDID)).measure([artifact(package)], SHORT, Silent())
    assert not phone.calls("push")


@pytest.mark.parametrize("program", ["ios", "pymobiledevice3"])
def test_developer_mode_is_asked_for(reach, package, program):
    reach(program, developer=False)
    with pytest.raises(DeviceError, match="developer mode off"):
        quick(_open(UDID)).measure([artifact(package)], SHORT, Silent())


def test_unknown_phones(reach, monkeypatch, tmp_path):
    reach("ios", devices=[UDID, OTHER])
    with pytest.raises(DeviceError, match="reaches 2 iPhones") as caught:
        _open("")
    assert f"iphone:{OTHER}" in caught.value.hint
    with pytest.raises(DeviceError, match="is not there"):
        _open("00000000-0000000000000000")
    with pytest.raises(DeviceError, match="unknown device"):
        _open("--udid=x")
    assert [device.device for device in ROUTE.found()] == [f"iphone:{UDID}", f"iphone:{OTHER}"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="no program that reaches iPhones") as caught:
        _open(UDID)
    assert "go-ios" in caught.value.hint
    assert ROUTE.found() == ()
    assert all(need.hint for need in ROUTE.needs())


def test_the_link_is_cut_and_made_again(reach, package):
    """The app goes on without the cable; nothing is started twice."""
    phone = reach("ios", beats=10)
    away = phone.root / "away"

    def sleep(seconds):
        if phone.calls("launch") and len(phone.calls("pull")) in (5, 6, 7):
            away.touch()
        elif away.exists() and len(phone.calls("pull")) > 8:
            away.unlink()
        time.sleep(0.05)

    opened = quick(_open(UDID), sleep=sleep)
    (found,) = opened.measure([artifact(package)], SHORT, Silent())
    assert len(found.samples_ms) == 2
    assert len(phone.calls("launch")) == 1
    assert not away.exists()


def test_a_phone_that_stays_away_is_found_again_by_the_same_command(reach, package):
    phone = reach("ios", beats=5)
    away = phone.root / "away"

    def sleep(seconds):
        if phone.calls("launch"):
            away.touch()
        time.sleep(0.02)

    opened = quick(_open(UDID), sleep=sleep, patience_seconds=0.3)
    with pytest.raises(GoneError, match="the measurement goes on there") as caught:
        opened.measure([artifact(package)], SHORT, Silent())
    assert "repeat the command" in caught.value.hint
    away.unlink()
    (found,) = quick(opened).measure([artifact(package)], SHORT, Silent())
    assert len(found.samples_ms) == 2
    assert len(phone.calls("launch")) == 1
    (_again,) = quick(opened).measure([artifact(package)], SHORT, Silent())
    assert len(phone.calls("launch")) == 2


def test_an_app_that_is_killed_leaves_no_measurement(reach, package):
    phone = reach("ios", dies=True)
    opened = quick(_open(UDID), silence_seconds=0.5)
    with pytest.raises(DeviceError, match="ended without a result") as caught:
        opened.measure([artifact(package)], SHORT, Silent())
    assert "out of memory" in caught.value.hint
    phone.set(dies=False)
    assert opened.measure([artifact(package)], SHORT, Silent())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"loses": 1}, "samples of .* are not complete"),
        ({"loses": 3}, "samples of .* are not complete"),
        ({"version": "0"}, "has version 0, 1 is needed"),
    ],
)
def test_only_a_complete_answer_of_a_known_app_is_believed(reach, package, state, message):
    reach("ios", **state)
    with pytest.raises(DeviceError, match=message):
        quick(_open(UDID)).measure([artifact(package)], SHORT, Silent())


def test_what_the_app_refuses_is_its_one_line(reach, package):
    reach("ios")
    (package / "Manifest.json").unlink()
    with pytest.raises(DeviceError, match=r"failed: edgefit-\w+\.parcel: A valid manifest does not exist"):
        quick(_open(UDID)).measure([artifact(package)], SHORT, Silent())


@pytest.mark.parametrize("program", TOOLS)
def test_the_app_is_installed_where_the_user_names_it(reach, package, program, tmp_path):
    app = tmp_path / "EdgefitRunner.app"
    app.mkdir()
    (app / "EdgefitRunner").write_text("a program")
    phone = reach(program)
    phone.set(installed=False)
    (tmp_path / "edgefit.toml").write_text(
        f'[devices."iphone:{UDID}"]\napp = "{app}"\ncompute_units = "cpu_and_ne"\n'
    )
    for installs in (1, 1):
        opened = quick(_open(UDID))
        (found,) = opened.measure([artifact(package)], SHORT, Silent())
        assert len(phone.calls("install")) == installs
    assert found.conditions.governor == "compute units cpu_and_ne"
    (app / "EdgefitRunner").write_text("another program")
    opened.measure([artifact(package)], SHORT, Silent())
    assert len(phone.calls("install")) == 2
    (app / "EdgefitRunner").unlink()
    app.rmdir()
    with pytest.raises(DeviceError, match="there is no app at"):
        opened.measure([artifact(package)], SHORT, Silent())


def test_a_setting_that_is_none(reach, tmp_path):
    reach()
    (tmp_path / "edgefit.toml").write_text(f'[devices."iphone:{UDID}"]\ncompute_units = "tpu"\n')
    with pytest.raises(InputError, match="compute_units = tpu"):
        _open(UDID)


def test_two_at_once(reach, package):
    phone = reach("ios")
    opened = quick(_open(UDID))
    with _alone(UDID), pytest.raises(DeviceError, match="another measurement is running"):
        opened.measure([artifact(package)], SHORT, Silent())
    beats = iter(range(1000))

    def sleep(seconds):
        (phone.documents / "edgefit-running").write_text(f"0123456789abcdef {next(beats)}")
        time.sleep(0.01)

    sleep(0)
    with pytest.raises(DeviceError, match="another measurement is running"):
        quick(opened, sleep=sleep).measure([artifact(package)], SHORT, Silent())
    assert not phone.calls("launch")
    assert opened.measure([artifact(package)], SHORT, Silent())  # what another one has left does not live


def test_interrupting_ends_the_app(reach, package):
    phone = reach("ios", beats=100)

    def sleep(seconds):
        if phone.calls("launch"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(_open(UDID), sleep=sleep).measure([artifact(package)], SHORT, Silent())
    assert f"--arg={NOBODY}" in phone.calls("launch")[-1]


def test_a_tool_that_hangs_is_not_waited_for(reach, monkeypatch):
    phone = reach("ios")
    (phone.root / "bin/ios").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("targets._shared.go_ios.GoIos._run.__kwdefaults__", {"seconds": 0.2})
    with pytest.raises(GoneError, match="did not answer within"):
        _open(UDID)


def test_as_a_target(reach, package, capsys):
    reach("xcrun")
    target: Target = registry.find("targets", "TARGET", "iphone")
    found = reached(target, f"iphone:{UDID}", probed=False)
    assert [runtime.name for runtime in found.target.runtimes] == ["coreml"]
    with pytest.raises(InputError, match="layers cannot be timed alone") as caught:
        reached(target, f"iphone:{UDID}")
    assert "bench" in caught.value.hint
    words = [
        "gate",
        str(package),
        "--baseline",
        str(package),
        "--device",
        f"iphone:{UDID}",
        "--max-fallbacks",
        "0",
    ]
    assert cli.main([*words, "--target", "iphone", "--seconds", "30", "--clock", "wall"]) in (0, 10)
    assert "operators newly off the accelerator" in capsys.readouterr().out


def test_phones_are_listed(reach, capsys):
    reach("xcrun")
    assert cli.main(["devices"]) == 0
    assert f"iphone:{UDID}" in (out := capsys.readouterr().out)
    assert "iPad14,3, iOS 17.0" in out
    assert "00008301" not in out  # the watch
    assert cli.main(["doctor", "--target", "iphone", "--json"]) == 0
    names = {need["name"]: need["found"] for need in json.loads(capsys.readouterr().out)["needs"]}
    assert names == {
        "devicectl, go-ios or pymobiledevice3": "devicectl",
        "the runner app on a phone": f"iphone:{UDID}",
    }


def test_a_flag_that_a_phone_cannot_follow(reach, package):
    reach()
    words = ["bench", str(package), "--device", f"iphone:{UDID}", "--max-celsius", "40"]
    assert cli.main(words) == 6


def test_a_parcel_holds_the_package(package, tmp_path):
    first, second = (pack(package, tmp_path / name) for name in ("a", "b"))
    assert first == second
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    head, _, body = (tmp_path / "a").read_bytes().partition(b"\n\n")
    name, *lines = head.decode().splitlines()
    assert name == "edgefit.parcel/1"
    for line in lines:
        size, path = line.split(" ", 1)
        assert body[: int(size)] == (package / path).read_bytes()
        body = body[int(size) :]
    assert body == b""


def test_every_cause_is_told_apart():
    """No words of one complaint are those of another that comes first in the table."""
    assert len({cause.means for cause in CAUSES}) == len(CAUSES)
    unknown = complaint("iphone:x", "use", "something\nnobody has seen")
    assert unknown.message == "cannot use iphone:x: something nobody has seen"
    assert isinstance(unknown, CompressError)
    assert iphone.RUNTIMES[0].probed is False
