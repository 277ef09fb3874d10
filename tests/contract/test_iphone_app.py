"""The Swift sources of the iPhone's runner, read as text: names and keys are those that the other end reads.

They were never compiled. What can be told without a compiler is that both ends speak of the same things.
"""

import re
from pathlib import Path

import pytest

from targets._shared.parcel import HEAD
from targets._shared.phone_runs import APP_VERSION, NOBODY, RUNNING
from targets._shared.phone_tools import BUNDLE
from targets._shared.runner import Job, Model
from targets._shared.settings import UNITS
from tests.iphones import NUMBERS

RUNNER = Path(__file__).parents[2] / "targets/iphone/Runner"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in (RUNNER / "Sources").glob("*.swift")}
C_RUNNER = Path(__file__).parents[2] / "targets/runner"
DOCUMENTED = (Path(__file__).parents[2] / "docs/runner.md").read_text(encoding="utf-8")


def literal_keys(name: str) -> set[str]:
    """The keys of dictionary literals and of assignments to members in a source."""
    text = SOURCES[name]
    return set(re.findall(r'"([a-z_0-9]+)"\s*:', text)) | set(
        re.findall(r'record\["([a-z_0-9]+)"\]\s*=', text)
    )


def test_the_sources_are_there_and_named_in_the_readme():
    readme = (RUNNER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+\.swift)`", readme)) == set(SOURCES)
    assert "never compiled" in readme


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_brackets_are_closed(name):
    """Strings and comments left out; in a string with a value in it the brackets belong together, too."""
    text = re.sub(r"//[^\n]*", "", SOURCES[name])
    text = re.sub(r'"(?:\\\([^"]*?\)|\\.|[^"\\])*"', '""', text)
    open_ones = []
    for character in text:
        if character in "([{":
            open_ones.append(character)
        elif character in ")]}":
            assert open_ones, f"{name}: '{character}' closes nothing"
            assert "([{".index(open_ones.pop()) == ")]}".index(character)
    assert not open_ones


def test_versions_and_names_agree():
    assert re.findall(r'let runnerVersion = "(.+)"', SOURCES["Protocol.swift"]) == [APP_VERSION]
    assert f'file("{RUNNING}")' in SOURCES["Place.swift"]
    for kind in ("job", "samples.ndjson", "result.json"):
        assert f'file("edgefit-\\(key).{kind}")' in SOURCES["Place.swift"]
    assert HEAD in SOURCES["Place.swift"]
    assert all(character in "0123456789abcdef" for character in NOBODY)
    assert f"PRODUCT_BUNDLE_IDENTIFIER: {BUNDLE}" in (RUNNER / "project.yml").read_text()


def test_every_key_of_a_job_is_known_to_the_app():
    model = Model(runtime="coreml", path="edgefit-0.parcel", sha256="ab")
    written = {line.split(" ")[0] for line in Job(models=(model,), units="all").text().splitlines()[1:]}
    assert written == NUMBERS | {"model", "units"}
    c_keys = set(re.findall(r'\{"(\w+)", (?:INT|LONG|DOUBLE)', (C_RUNNER / "job.c").read_text()))
    assert c_keys == NUMBERS


def test_compute_units_are_called_alike():
    assert set(re.findall(r'"(\w+)": \.(?:all|cpu)', SOURCES["Job.swift"])) == set(UNITS)


def test_records_have_the_keys_of_the_c_runner():
    """Both write the records of docs/runner.md; what a phone has besides is named there."""
    c = (C_RUNNER / "protocol.c").read_text() + (C_RUNNER / "runner.c").read_text()
    trial = set(re.findall(r'json_\w+_member\(out, &first, "(\w+)"', (C_RUNNER / "protocol.c").read_text()))
    trial |= {"settled"}
    assert trial - {"cpu_ns"} <= literal_keys("Trial.swift")
    assert {
        "type",
        "schema",
        "runner",
        "pid",
        "libraries",
        "affinity",
        "conditions",
        "records",
    } <= literal_keys("Protocol.swift")
    result = re.search(r"static bool write_result.*?\n}", c, re.DOTALL)
    keys = set(re.findall(r'_member\(out, &first, "(\w+)"', result[0])) | {"schema"}
    assert keys <= literal_keys("Protocol.swift")
    more = literal_keys("Trial.swift") - trial - {"type"}
    assert more == {"thermal_state"}
    assert all(f"`{key}`" in DOCUMENTED for key in more)


def test_conditions_have_the_keys_of_the_c_runner():
    c = set(
        re.findall(
            r'(?:_member\(out, &first|json_key\(out, &?first), "(\w+)"',
            (C_RUNNER / "conditions.c").read_text(),
        )
    )
    swift = literal_keys("Conditions.swift")
    assert c <= swift
    assert swift - c == {"thermal_state", "low_power_mode", "compute_units"}
    assert all(f"`{key}`" in DOCUMENTED for key in swift - c)


def test_statuses_are_those_of_the_c_runner():
    fault = (C_RUNNER / "fault.h").read_text()
    c = dict(re.findall(r"STATUS_(\w+) = (\d)", fault))
    swift = dict(
        re.findall(
            r"static func (\w+)\(_ text: String\) -> Fault \{ Fault\(status: (\d)", SOURCES["Place.swift"]
        )
    )
    assert {name: swift[name.lower()] for name in ("JOB", "MODEL", "OUTPUT", "CONDITION")} == {
        name: c[name] for name in ("JOB", "MODEL", "OUTPUT", "CONDITION")
    }


def test_placements_are_told_as_they_are_read():
    assert {"type", "model", "accelerator", "operators", "away", "name", "kind", "device"} <= literal_keys(
        "Placement.swift"
    )
