"""Documents that cannot go stale in silence: every documented command parses, tables match the code."""

import re
import shlex
from pathlib import Path

import pytest

from toolchain import cli, errors
from toolchain.cases import requests_of
from toolchain.flag_gate import GATING
from toolchain.flags import parser_for, request_of
from toolchain.gate.commands import gate_request
from toolchain.gate.record import EXIT
from toolchain.help_texts import COMMANDS, EXIT_CODES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def documented_commands():
    """Every `compress ...` and `edgefit ...` line of README's code blocks and of the help pages."""
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    pages = [parser_for(name, name).format_help() for name in COMMANDS]
    for text in (*blocks, *pages):
        for line in text.splitlines():
            bare = re.split(r"\s{2,}#|\s{4,}|[|>]", line.strip())[0].strip()
            if re.match(r"(compress|edgefit [a-z]+) \S|edgefit (doctor|targets|devices)$", bare):
                yield bare


def test_there_are_documented_commands():
    assert len(set(documented_commands())) > 12


@pytest.mark.parametrize("line", sorted(set(documented_commands())))
def test_documented_command_parses(line):
    words = shlex.split(line)
    words = words if words[0] == "compress" else words[1:]
    flags = parser_for(words[0], words[0]).read(words[1:])
    if words[0] in ("compress", "plan"):
        assert requests_of(flags, words[0])
    elif words[0] == "gate":
        assert gate_request(flags).candidate == flags.candidate
    elif words[0] not in ("doctor", "targets", "devices", "runner", "restore", *GATING):
        request_of(flags, words[0])


def test_readme_lists_the_exit_codes_of_the_code():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (\d+) \| (.+) \|$", readme, re.MULTILINE))
    printed = dict(re.findall(r"^ +(\d+) +(.+)$", EXIT_CODES, re.MULTILINE))
    assert listed == printed
    leaves = {kind.exit_code for kind in errors.CompressError.__subclasses__()}
    assert leaves | {0, 1, *EXIT.values(), cli.INTERNAL, cli.INTERRUPTED} == {int(code) for code in printed}


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_files_named_in_the_documents_exist():
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:toolchain|targets|tests|benchmarks|docs)/[\w/.]+)`", text):
            if "NAME" not in name:
                assert (ROOT / name).exists(), f"{document.name}: {name}"


def test_every_field_of_the_schema_is_documented():
    import sys

    sys.path.insert(0, str(ROOT / "tests" / "golden"))
    import sample_record

    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_0-9]+)`", text))
    record = sample_record.RECORD
    fields = set(record) | set(record["plan"]) | set(record["checks"][0]) | set(record["budget"][0])
    fields |= set(record["result"]["artifacts"][0]) | set(record["result"]["measurements"][0])
    fields |= set(record["rounds"][0]) | set(record["training"]["epochs"][0])
    derived = {f for f in fields if re.fullmatch(r"p\d\d_(low|high)_ms", f)}
    assert fields - derived <= named

    import sample_front

    front = sample_front.front()
    fields = set(front) | set(front["cases"][0]) | set(front["originals"][0])
    parts = [case[part] or {} for case in front["cases"] for part in ("latency", "predicted", "file")]
    fields |= {name for part in parts for name in part}
    assert fields <= named


def test_makefile_targets_of_the_readme_exist():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"^make (\w[\w-]*)", document.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", text, re.MULTILINE), target
