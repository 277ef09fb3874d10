"""The form of the house: import rules, heavy libraries in their own files, the shape of plug-ins."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for room in ("toolchain", "targets") for p in (ROOT / room).rglob("*.py"))
HEAVY = {
    "onnx": ("toolchain/export", "toolchain/quantize", "toolchain/verify", "toolchain/latency", "targets"),
    "onnxscript": ("toolchain/export",),
    "onnxsim": ("toolchain/export",),
    "onnxruntime": ("toolchain/export", "toolchain/quantize", "toolchain/latency", "targets"),
    "coremltools": ("toolchain/coreml_package", "toolchain/export", "toolchain/quantize", "toolchain/verify"),
    "litert_torch": ("toolchain/export", "toolchain/latency"),
    "ai_edge_litert": (
        "toolchain/export",
        "toolchain/quantize",
        "toolchain/latency",
        "toolchain/verify/micro",
        "targets",
    ),
    "ai_edge_quantizer": ("toolchain/quantize",),
    "sklearn": (),
    "asyncssh": ("targets/_routes/ssh",),
    "emx_onnx_cgen": (),
    "tflite_micro": ("toolchain/verify/micro",),
    "torchvision": (),
    "timm": (),
}
STDLIB = set(sys.stdlib_module_names)


def imports(tree):
    """(line, top-level module, whether it runs when the file is imported)."""
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        else:
            continue
        for name in names:
            yield node.lineno, name.split(".")[0], id(node) not in lazy


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_keeps_the_form(path):
    place = str(path.relative_to(ROOT))
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 400, "past 400 lines: look for the seam"
    if path.name != "__init__.py":
        assert path.stem not in STDLIB, "shadows the standard library"
        assert path.stem not in {"utils", "helpers", "manager", "base", "common", "misc"}
        assert ast.get_docstring(tree), "says nothing of what it is"
    for line, module, eager in imports(tree):
        if module in HEAVY:
            assert not eager or "worker" in path.name, f"line {line} loads {module} on import"
            assert place.startswith(HEAVY[module] or "nowhere"), f"line {line}: {module} does not belong here"


PLUGINS = {
    "toolchain/prune/criteria": "CRITERION",
    "toolchain/prune/schedules": "SCHEDULE",
    "toolchain/train/learners": "LEARNER",
    "toolchain/train/forms": "FORM",
    "toolchain/export": "FORMAT",
    "toolchain/quantize": "QUANTIZER",
    "targets": "TARGET",
    "targets/_routes": "ROUTE",
}


@pytest.mark.parametrize("folder", PLUGINS)
def test_plugins_end_in_their_annotated_constant(folder):
    files = [p for p in (ROOT / folder).glob("*.py") if not p.name.startswith("_")]
    assert files
    for path in files:
        last = ast.parse(path.read_text(encoding="utf-8")).body[-1]
        assert isinstance(last, ast.AnnAssign), path.name
        assert last.target.id == PLUGINS[folder], path.name


def test_imports_run_one_way():
    script = Path(sys.executable).with_name("lint-imports")
    if not script.is_file():
        pytest.skip("import-linter is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [script, "--no-cache"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
