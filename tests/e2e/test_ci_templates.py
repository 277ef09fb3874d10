"""The GitHub action, the example workflow and the GitLab template: their steps run in a real clone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.test_targets import small_onnx
from tests.unit.test_gate import git

yaml = pytest.importorskip("yaml")
pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "ci"


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A shallow clone whose models/model.onnx is much slower than in the base branch."""
    origin = tmp_path / "origin"
    (origin / "models").mkdir(parents=True)
    git(origin, "init", "-q", "-b", "main")
    small_onnx(origin / "models" / "model.onnx")
    git(origin, "add", ".")
    git(origin, "commit", "-q", "-m", "small")
    git(origin, "checkout", "-q", "-b", "change")
    small_onnx(origin / "models" / "model.onnx", width=512)
    git(origin, "commit", "-q", "-a", "-m", "large")
    here = tmp_path / "clone"
    words = ["git", "clone", "-q", "--depth=1", "--branch", "change", f"file://{origin}", str(here)]
    subprocess.run(words, check=True, capture_output=True)
    command = tmp_path / "bin" / "edgefit"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m toolchain.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("EDGEFIT_CACHE", str(tmp_path / "cache"))
    return here


def filled(text, inputs, outputs):
    """`${{ inputs.x }}` and `${{ steps.a.outputs.b }}` as the workflow engine puts them in."""
    text = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: inputs[m[1]], text)
    return re.sub(r"\$\{\{ steps\.(\w+)\.outputs\.([\w-]+) \}\}", lambda m: outputs[m[1]].get(m[2], ""), text)


def run_action(clone, tmp_path, given):
    """(exit code of the first step that fails or 0, outputs by step, summary, what was printed)."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert set(given) <= set(action["inputs"])
    inputs = {name: str(entry.get("default", "")) for name, entry in action["inputs"].items()} | given
    assert action["runs"]["using"] == "composite"
    outputs, summary, said = {}, tmp_path / "summary.md", ""
    summary.touch()
    for number, step in enumerate(action["runs"]["steps"]):
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "inputs reach scripts through the environment only"
        file = tmp_path / f"output-{number}"
        file.touch()
        environment = {name: filled(str(v), inputs, outputs) for name, v in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=clone,
            env=os.environ | environment | {"GITHUB_OUTPUT": str(file), "GITHUB_STEP_SUMMARY": str(summary)},
            capture_output=True,
            text=True,
            check=False,
        )
        said += done.stdout + done.stderr
        outputs[step.get("id", "")] = dict(line.split("=", 1) for line in file.read_text().splitlines())
        if done.returncode:
            return done.returncode, outputs, summary.read_text(), said
    return 0, outputs, summary.read_text(), said


def workflow_inputs():
    workflow = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())
    (ours,) = [step for step in workflow["jobs"]["gate"]["steps"] if step.get("uses") == "./"]
    return {name: str(value) for name, value in ours["with"].items()}


def test_the_example_workflow_fails_a_slower_model(clone, tmp_path):
    given = workflow_inputs() | {"baseline": "main", "arguments": ""}
    code, outputs, summary, said = run_action(clone, tmp_path, given)
    assert code == 1, said
    assert outputs["gate"] == {"exit-code": "1", "verdict": "fail"}
    assert "edgefit gate: FAIL" in summary
    assert "::error title=" in said


def test_the_action_passes_with_other_limits_and_a_file_of_the_revision(clone, tmp_path):
    given = workflow_inputs() | {
        "baseline": "HEAD:models/model.onnx",
        "max-regression": "60",
        "arguments": "--max-growth 0 --min-agreement 100",
    }
    code, outputs, summary, said = run_action(clone, tmp_path, given)
    assert code == 0, said
    assert outputs["gate"]["verdict"] == "pass"
    assert "file growth" in summary


def test_an_input_that_is_shell_code_is_only_a_name(clone, tmp_path):
    given = {"candidate": "$(touch owned)`touch owned`; touch owned", "baseline": "HEAD"}
    code, outputs, _, said = run_action(clone, tmp_path, given)
    assert code == 2
    assert "error: no model at" in said
    assert not (clone / "owned").exists()
    assert outputs["gate"] == {"exit-code": "2"}


def test_the_gitlab_job_gates_and_leaves_its_report(clone, tmp_path):
    template = yaml.safe_load((EXAMPLES / "edgefit.gitlab-ci.yml").read_text())
    job = template[template["edgefit-gate"]["extends"]]
    script = "\n".join([*job["before_script"], *job["script"]])
    for more, wanted in (
        ({}, 1),
        ({"MODEL": "models/model.onnx", "BASELINE": "HEAD", "MAX_REGRESSION": "60"}, 0),
    ):
        variables = {k: str(v) for k, v in job["variables"].items()}
        variables |= {"MODEL": "models/model.onnx", "BASELINE": "origin/main"} | more
        subprocess.run(
            ["git", "fetch", "-q", "--depth=1", "origin", "main:refs/remotes/origin/main"],
            cwd=clone,
            check=False,
        )
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=clone, env=os.environ | variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == wanted, done.stderr
        assert (clone / job["artifacts"]["reports"]["junit"]).is_file()
    assert job["allow_failure"]["exit_codes"] == 10
