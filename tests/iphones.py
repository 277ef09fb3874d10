"""Stand-ins for an iPhone: what devicectl, go-ios and pymobiledevice3 said to others, and an app that keeps the protocol.

Nothing here was tried with a phone. What the tools say is quoted from public places, each named; identifiers are
those found there. The app is a script that reads the same job file as `targets/iphone/Runner` and answers with its
records; what it "measures" is how long it takes to hash the parcel.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

UDID = "00001234-0001234A3C03401E"
OTHER = "00008140-000278EC3E87001C"
FLUTTER = "flutter/flutter, packages/flutter_tools/test/general.shard/ios/core_devices_test.dart"

# What devicectl writes into its JSON file. Source: FLUTTER, the parts of one device put together; lockState:
# public test data of several programs that drive devicectl (keys passcodeRequired, unlockedSinceBoot).
DEVICE = {
    "connectionProperties": {
        "authenticationType": "manualPairing",
        "pairingState": "paired",
        "transportType": "wired",
        "tunnelState": "connected",
        "tunnelTransportProtocol": "tcp",
    },
    "deviceProperties": {
        "bootState": "booted",
        "ddiServicesAvailable": True,
        "developerModeStatus": "enabled",
        "name": "iPadName",
        "osBuildUpdate": "21A5248v",
        "osVersionNumber": "17.0",
    },
    "hardwareProperties": {
        "deviceType": "iPad",
        "hardwareModel": "J617AP",
        "marketingName": 'iPad Pro (11-inch) (4th generation)"',
        "platform": "iOS",
        "productType": "iPad14,3",
        "udid": UDID,
    },
    "identifier": "123456BB5-AEDE-7A22-B890-1234567890DD",
    "visibilityClass": "default",
}
# A watch that is paired with somebody's phone, as it turns up in the same list (public issue trackers).
WATCH = {
    "connectionProperties": {"pairingState": "paired", "tunnelState": "unavailable"},
    "deviceProperties": {
        "ddiServicesAvailable": False,
        "developerModeStatus": "disabled",
        "osVersionNumber": "11.3.1",
    },
    "hardwareProperties": {
        "platform": "watchOS",
        "productType": "Watch6,7",
        "udid": "00008301-F0918DA12298C02E",
    },
}


def error(domain, code, description="", reason="", under=None):
    """An error as devicectl writes it (shape: FLUTTER, "devicectl fails install")."""
    info = {}
    if description:
        info["NSLocalizedDescription"] = {"string": description}
    if reason:
        info["NSLocalizedFailureReason"] = {"string": reason}
    if under:
        info["NSUnderlyingError"] = {"error": under}
    return {"code": code, "domain": domain, "userInfo": info}


CORE, FRONT = "com.apple.dt.CoreDeviceError", "FBSOpenApplicationErrorDomain"
LOCKED = "Unable to launch io.edgefit.runner because the device was not, or could not be, unlocked."
UNTRUSTED = (
    "Unable to launch io.edgefit.runner because it has an invalid code signature, inadequate entitlements or its "
    "profile has not been explicitly trusted by the user."
)
GONE = "CoreDeviceService was unable to locate a device matching the requested device identifier."
DEVICECTL = {
    # Wording and numbers as users of devicectl quote them (codes 10002, 7 and 3; 1011; 7000; -1).
    "locked": error(
        CORE, 10002, "The application failed to launch.", under=error(FRONT, 7, LOCKED, "Locked")
    ),
    "untrusted": error(CORE, 10002, "The application failed to launch.", under=error(FRONT, 3, UNTRUSTED)),
    "gone": error(CORE, 1011, GONE),
    "no file": error(CORE, 7000, "Failed to retrieve the file node for Documents/x"),
    "no app": error("ContainerLookupErrorDomain", -1),
    # FLUTTER, "devicectl fails launch with an error": the app is not installed.
    "not installed": error("NSOSStatusErrorDomain", -10814),
    # FLUTTER, "devicectl fails install".
    "no bundle": error(
        CORE,
        1005,
        "Could not obtain access to one or more requested file system resources because CoreDevice was unable to "
        "create bookmark data.",
        under=error("NSCocoaErrorDomain", 260),
    ),
}
# (standard output, standard error); exit status 1.
GOIOS = {
    # github.com/danielpaulus/go-ios/issues/593
    "no app": (
        "",
        '{"err":"InstallationLookupFailed","level":"fatal","msg":"fsync: connect afc service failed",'
        '"time":"2025-05-07T09:30:58Z"}\n',
    ),
    # github.com/danielpaulus/go-ios/issues/137
    "no services": (
        "",
        '{"err":"Could not start service:com.apple.instruments.remoteserver.DVTSecureSocketProxy with '
        'reason:\'InvalidService\'. Have you mounted the Developer Image?","level":"fatal","msg":"failed opening '
        'deviceInfoService for getting process list","time":"2022-05-05T18:38:38+02:00"}\n',
    ),
    # github.com/danielpaulus/go-ios/issues/588
    "untrusted": (
        "",
        '{"err":"received wrong error message \'PairingDialogResponsePending\' error message should have been '
        '\'McChallengeRequired\' : map[Error:PairingDialogResponsePending Request:Pair]","level":"fatal","msg":'
        '"Pairing failed","time":"2025-04-13T20:55:20+07:00"}\n',
    ),
    # Its source: ios/utils.go, ios/pair_read.go, ios/afc/errors.go, main.go (logFatal).
    "gone": (
        "",
        '{"level":"ERROR","msg":"Device not found: X","err":"Device \'X\' not found. Is it attached to the machine?"}\n',
    ),
    "unpaired": (
        "",
        '{"level":"ERROR","msg":"failed getting info","err":"ReadPair failed with errorcode \'2\', is the device paired?"}\n',
    ),
    "no file": (
        "",
        '{"level":"ERROR","msg":"fsync: pull failed","err":"error getting file info: ObjectNotFound"}\n',
    ),
    "no usbmuxd": (
        "",
        '{"level":"ERROR","msg":"failed getting device list","err":"dial unix /var/run/usbmuxd: connect: no such file or directory"}\n',
    ),
}
# Standard error; exit status 0, as its main() has it. Texts: pymobiledevice3/__main__.py, its issues 872, 1064, 1500.
PYMOBILE = {
    "gone": "2024-03-04 16:44:31 ubuntu __main__[3435] ERROR Device is not connected\n",
    "no tunnel": "pymobiledevice3.__main__[85627] ERROR Unable to connect to Tunneld. You can start one using:\n"
    "```sudo python3 -m pymobiledevice3 remote tunneld```\n",
    "locked": "2024-03-04 16:44:31 ubuntu __main__[3435] ERROR Device is password protected. Please unlock and retry\n",
    "unpaired": "2024-03-04 16:44:31 ubuntu __main__[3435] ERROR Device is not paired\n",
    "no developer mode": "2024-03-04 16:44:31 ubuntu __main__[3435] ERROR Developer Mode is disabled. You can try to "
    "enable it using: python3 -m pymobiledevice3 amfi enable-developer-mode\n",
    "no file": "2024-03-04 16:44:31 ubuntu __main__[3435] ERROR File [/Documents/x] not found during afc operation: 8\n",
    "no app": 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n'
    "pymobiledevice3.exceptions.AppNotInstalledError: No app with bundle id io.edgefit.runner found\n",
}
# github.com/danielpaulus/go-ios/pull/836 and its main.go (list, info)
GOIOS_INFO = {"DeviceName": "iPhone", "ProductType": "iPhone17,3", "ProductVersion": "26.2.1"}
# github.com/doronz88/pymobiledevice3/issues/872
PYMOBILE_LIST = {
    "BuildVersion": "19E258",
    "ConnectionType": "USB",
    "DeviceClass": "iPhone",
    "DeviceName": "tao的iPhone",
    "Identifier": UDID,
    "ProductType": "iPhone13,2",
    "ProductVersion": "15.4.1",
}


class Phone:
    """A phone's state, in a folder: its app's documents, what it complains of, what was done to it."""

    def __init__(self, root: Path):
        self.root = root

    @property
    def documents(self) -> Path:
        return self.root / "Documents"

    def make(self, program: str, **settings) -> Path:
        """A folder with `program` in it that reaches this phone."""
        for folder in (self.documents, self.root / "bin"):
            folder.mkdir(parents=True, exist_ok=True)
        self.set(program=program, installed=True, **settings)
        script = self.root / "bin" / program
        script.write_text(
            f'#!/bin/sh\nexec env -u PYTHONPATH {sys.executable} {Path(__file__).resolve()} {self.root} "$0" "$@"\n'
        )
        script.chmod(0o700)
        return script

    def set(self, **settings) -> None:
        """Change what the phone is: `says` maps a step (list, ask, push, pull, launch, install) to a complaint."""
        known = self.state() | settings
        (self.root / "state.tmp").write_text(json.dumps(known))
        (self.root / "state.tmp").replace(self.root / "state.json")

    def state(self) -> dict:
        path = self.root / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def calls(self, step: str = "") -> list[str]:
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(step)]


class Complaint(Exception):
    """A step fails with a recorded complaint."""


def said(phone: Phone, step: str) -> None:
    """Write down that a step was asked for; fail where the phone is to complain."""
    with (phone.root / "calls").open("a") as calls:
        calls.write(f"{step} {' '.join(sys.argv[3:])}\n")
    state = phone.state()
    if (phone.root / "away").exists():
        raise Complaint("gone")
    if step in state.get("says", {}):
        raise Complaint(state["says"][step])
    if step in ("push", "pull", "launch") and not state.get("installed"):
        raise Complaint("no app")


def launch(phone: Phone, key: str) -> int:
    """End the app that runs, start it anew with one argument; its process number."""
    running = phone.root / "app.pid"
    if running.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(running.read_text()), 9)
    command = [sys.executable, __file__, str(phone.root), "app", key]
    app = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(phone.root / "app.log").open("w"),
        start_new_session=True,
    )  # fmt: skip
    running.write_text(str(app.pid))
    return app.pid


def copy_to(phone: Phone, source: str, name: str) -> None:
    (phone.documents / Path(name).name).write_bytes(Path(source).read_bytes())


def copy_from(phone: Phone, name: str) -> bytes:
    path = phone.documents / Path(name).name
    if not path.exists():
        raise Complaint("no file")
    return path.read_bytes()


def flag(words: list[str], name: str) -> str:
    """The value of `--name VALUE` or `--name=VALUE`."""
    for number, word in enumerate(words):
        if word == name:
            return words[number + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    raise SystemExit(f"Missing expected argument '{name} <value>'")


def xcrun(phone: Phone, words: list[str]) -> int:
    """`xcrun devicectl ...`; the answer goes into the file that --json-output names."""
    assert words[0] == "devicectl"
    answer = {"info": {"arguments": words, "outcome": "success", "version": "341"}}
    out, command = Path(flag(words, "--json-output")), " ".join(words[1:5])
    try:
        if command.startswith("list devices"):
            said(phone, "list")
            answer["result"] = {"devices": [phone.state().get("device", DEVICE), WATCH]}
        elif command.startswith("device info lockState"):
            said(phone, "ask")
            locked = phone.state().get("locked", False)
            answer["result"] = {"passcodeRequired": locked, "unlockedSinceBoot": True}
        elif command.startswith("device install app"):
            said(phone, "install")
            phone.set(installed=True)
            answer["result"] = {"installedApplications": [{"bundleID": "io.edgefit.runner"}]}
        elif command.startswith("device copy to"):
            said(phone, "push")
            copy_to(phone, flag(words, "--source"), flag(words, "--destination"))
        elif command.startswith("device copy from"):
            said(phone, "pull")
            Path(flag(words, "--destination")).write_bytes(copy_from(phone, flag(words, "--source")))
        else:
            assert command.startswith("device process launch"), command
            said(phone, "launch")
            assert words[-2] == "io.edgefit.runner"
            answer["result"] = {"process": {"processIdentifier": launch(phone, words[-1])}}
    except Complaint as complaint:
        answer["info"]["outcome"] = "failed"
        answer["error"] = DEVICECTL[str(complaint)]
        out.write_text(json.dumps(answer))
        sys.stderr.write("ERROR: as in the JSON\n")
        return 1
    out.write_text(json.dumps(answer))
    return 0


def ios(phone: Phone, words: list[str]) -> int:
    """go-ios; files go by `fsync`, which wants a folder to pull into."""
    try:
        if words[0] == "list":
            said(phone, "list")
            print(json.dumps({"deviceList": phone.state().get("devices", [UDID, UDID])}))
        elif words[0] == "info":
            said(phone, "ask")
            print(json.dumps(GOIOS_INFO))
        elif words[:2] == ["devmode", "get"]:
            said(phone, "ask")
            print(json.dumps({"DeveloperModeEnabled": phone.state().get("developer", True)}))
        elif words[0] == "install":
            said(phone, "install")
            phone.set(installed=True)
        elif words[0] == "fsync" and "push" in words:
            said(phone, "push")
            copy_to(phone, flag(words, "--srcPath"), flag(words, "--dstPath"))
        elif words[0] == "fsync" and "pull" in words:
            said(phone, "pull")
            name = flag(words, "--srcPath")
            (Path(flag(words, "--dstPath")) / Path(name).name).write_bytes(copy_from(phone, name))
        else:
            assert words[0] == "launch", words
            said(phone, "launch")
            pid = launch(phone, flag(words, "--arg"))
            sys.stderr.write(json.dumps({"level": "INFO", "msg": "Process launched", "pid": pid}) + "\n")
    except Complaint as complaint:
        out, err = GOIOS[str(complaint)]
        sys.stdout.write(out)
        sys.stderr.write('{"level":"WARN","msg":"failed to get tunnel info","udid":"X"}\n' + err)
        return 1
    return 0


def pymobiledevice3(phone: Phone, words: list[str]) -> int:
    """pymobiledevice3; its status is 0 whatever happened."""
    try:
        if words[:2] == ["usbmux", "list"]:
            said(phone, "list")
            print(json.dumps([PYMOBILE_LIST]))
        elif words[0] == "amfi":
            said(phone, "ask")
            print(json.dumps(phone.state().get("developer", True)))
        elif words[:2] == ["apps", "install"]:
            said(phone, "install")
            phone.set(installed=True)
        elif words[:2] == ["apps", "push"]:
            said(phone, "push")
            copy_to(phone, words[3], words[4])
        elif words[:2] == ["apps", "pull"]:
            said(phone, "pull")
            Path(words[4]).write_bytes(copy_from(phone, words[3]))
        else:
            assert words[:3] == ["developer", "dvt", "launch"], words
            said(phone, "launch")
            sys.stderr.write(
                "WARNING Trying again over a no-root userspace tunnel since it is a developer command\n"
            )
            print(f"Process launched with pid {launch(phone, words[3].split()[1])}")
    except Complaint as complaint:
        sys.stderr.write(PYMOBILE[str(complaint)])
    return 0


JOB_SWIFT = Path(__file__).parents[1] / "targets/iphone/Runner/Sources/Job.swift"
NUMBERS = set(re.findall(r'"([a-z_]+)": -?\d', JOB_SWIFT.read_text(encoding="utf-8")))
"""The numbers of a job that the app knows."""


class Fault(Exception):
    """What ends a job: status and text, as in Place.swift."""


def app(phone: Phone, key: str) -> None:
    """The runner app: the job's records, and a result at the end."""
    status, text, trials = 0, None, 0
    beat(phone, key, 1)
    samples = phone.documents / f"edgefit-{key}.samples.ndjson"
    try:
        file = phone.documents / f"edgefit-{key}.job"
        if not file.exists():
            raise Fault(2, f"there is no job {key}")
        models, job = read_job(file.read_text())
        for path in phone.documents.glob("edgefit-*"):
            if path.name not in (file.name, *(name for _, name in models)):
                path.unlink()
        for number in range(2, 2 + int(phone.state().get("beats", 0))):
            time.sleep(0.1)
            beat(phone, key, number)
        if phone.state().get("dies"):
            return
        for sha, name in models:
            check_parcel((phone.documents / name).read_bytes(), sha, name)
        lines = list(records(phone, models, job))
        trials = len(lines) - 2
        lines = lines[: len(lines) - phone.state().get("loses", 0)]
        samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    except Fault as fault:
        status, text = fault.args
    result = {
        "schema": "edgefit.result/1", "status": "failed" if status else "complete", "exit_code": status, "error": text,
        "records": trials, "seconds": 0.1,
    }  # fmt: skip
    partial = phone.documents / ".result"
    partial.write_text(json.dumps(result))
    partial.replace(phone.documents / f"edgefit-{key}.result.json")
    (phone.documents / "edgefit-running").unlink(missing_ok=True)


def beat(phone: Phone, key: str, number: int) -> None:
    (phone.root / "beat").write_text(f"{key} {number}")
    (phone.root / "beat").replace(phone.documents / "edgefit-running")


def read_job(text: str) -> tuple[list[tuple[str, str]], dict[str, float]]:
    lines = text.splitlines()
    assert lines[0] == "edgefit.job/1"
    models, job = [], {}
    for line in lines[1:]:
        name, _, value = line.partition(" ")
        if name == "model":
            runtime, sha, path = value.split(" ", 2)
            assert runtime == "coreml"
            models.append((sha, path))
        elif name == "units":
            assert value in ("all", "cpu_only", "cpu_and_gpu", "cpu_and_ne")
        elif name in NUMBERS:
            job[name] = float(value)
        else:
            raise Fault(2, f"job: unknown key '{name}'")
    for name in ("together", "marks", "max_celsius"):
        if job[name] > 0:
            raise Fault(2, f"job: a phone cannot do '{name}'")
    if job["turns"] > 1:
        raise Fault(2, "job: a phone opens models one by one")
    return models, job


def check_parcel(data: bytes, sha: str, name: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha:
        raise Fault(4, f"{name} is not the file that was sent: its hash differs")
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode().splitlines()
    assert first == "edgefit.parcel/1"
    files = dict(reversed(line.split(" ", 1)) for line in lines)
    assert sum(int(size) for size in files.values()) == len(body)
    if "Manifest.json" not in files:
        raise Fault(4, f"{name}: A valid manifest does not exist at path")


def records(phone: Phone, models, job):
    units = "all"
    conditions = {
        "device": "iPhone14,2", "soc": None, "os": "iOS 17.0", "kernel": "23.0.0", "machine": "arm64", "cpu": None,
        "cores": 6, "affinity": None, "governor": None, "frequency_mhz": None, "max_mhz": None, "boost": None,
        "load": None, "temperatures": None, "battery_percent": 80.0, "charging": True, "thermal_state": "nominal",
        "low_power_mode": phone.state().get("saving", False), "compute_units": units,
    }  # fmt: skip
    version = phone.state().get("version", "1")
    yield {"type": "begin", "schema": "edgefit.samples/1", "runner": version, "pid": 1, "affinity": None,
           "libraries": {"coreml": "iOS 17.0"}, "conditions": conditions}  # fmt: skip
    count = 0
    for trial in range(int(job["trials"])):
        for model, (_, name) in enumerate(models):
            data = (phone.documents / name).read_bytes()
            for window in range(int(job["windows"])):
                wall = []
                for _ in range(max(1, int(job["most"] or job["least"]))):
                    start = time.perf_counter_ns()
                    hashlib.sha256(data).digest()
                    wall.append(time.perf_counter_ns() - start)
                count += 1
                yield {
                    "type": "trial", "trial": trial, "model": model, "window": window, "version": "iOS 17.0",
                    "runs": len(wall), "stride": 1, "late": 0, "min_ns": min(wall), "window_ns": sum(wall),
                    "celsius": None, "mhz": None, "wall_ns": wall, "thermal_state": "nominal",
                    **({} if window else {"load_ns": 5000, "first_ns": 9000, "warmup": 20, "settled": True,
                                          "peak_bytes": 1000}),
                }  # fmt: skip
    if job["placement"]:
        for model in range(len(models)):
            count += 1
            away = [{"name": "x_1", "kind": "ios17.cast", "device": "CPU"}]
            yield {
                "type": "placement",
                "model": model,
                "accelerator": "Neural Engine",
                "operators": 66,
                "away": away,
            }
    yield {"type": "end", "records": count, "conditions": conditions}


if __name__ == "__main__":
    there, what, *rest = Phone(Path(sys.argv[1])), sys.argv[2], *sys.argv[3:]
    if what == "app":
        app(there, rest[0])
        sys.exit(0)
    sys.exit({"xcrun": xcrun, "ios": ios, "pymobiledevice3": pymobiledevice3}[Path(what).name](there, rest))
