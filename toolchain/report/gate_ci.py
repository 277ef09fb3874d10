"""A gate's record as CI systems read it: JUnit XML and GitHub's workflow commands."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any, Final

from toolchain.report.gate_text import HEADLINES, amount, limit, title

Record = Mapping[str, Any]
_LEVEL: Final = {"fail": "error", "inconclusive": "warning"}
# What XML 1.0 does not allow even escaped.
_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(record: Record) -> str:
    """A test suite with a case for every gate; an unclear one is skipped, unless it counts as a failure."""
    checks = record["checks"]
    suite = ET.Element("testsuite", name="edgefit gate")
    counts = {"failures": 0, "skipped": 0}
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="edgefit.gate", name=check["name"])
        case.set("time", f"{record['seconds'] if check['name'] == 'latency' else 0.0:.3f}")
        if check["verdict"] == "pass":
            continue
        counts_as = "failure" if check["verdict"] == "fail" or record["exit_code"] == 1 else "skipped"
        counts["failures" if counts_as == "failure" else "skipped"] += 1
        ET.SubElement(case, counts_as, message=_clean(line(check)))
    suite.attrib |= {"tests": str(len(checks)), "errors": "0", "time": f"{record['seconds']:.3f}"}
    suite.attrib |= {key: str(value) for key, value in counts.items()}
    suite.set("timestamp", record["created"].removesuffix("+00:00"))
    said = [title(record), *(line(check) for check in checks), *record["notes"]]
    ET.SubElement(suite, "system-out").text = _clean("\n".join(said))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def line(check: Record) -> str:
    """One gate in one line."""
    detail = f" ({check['detail']})" if check["detail"] else ""
    return f"{check['name']}: {amount(check)}, limit {limit(check)}: {check['verdict']}{detail}"


def github_annotations(record: Record) -> str:
    """A workflow command for every gate that did not pass, a notice where all did; lines end in newlines."""
    found = [
        f"::{_LEVEL[check['verdict']]} title={_property(_heading(check))}::{_data(line(check))}"
        for check in record["checks"]
        if check["verdict"] != "pass"
    ]
    latency = record["checks"][0]
    return (
        "\n".join(found or [f"::notice title={_property('edgefit gate: PASS')}::{_data(line(latency))}"])
        + "\n"
    )


def _heading(check: Record) -> str:
    return f"edgefit gate: {HEADLINES[check['verdict']]} {check['name']}"


def _data(text: str) -> str:
    """A message as workflow commands want it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
