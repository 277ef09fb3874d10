"""`edgefit embed`: what is linked is the file, byte for byte, and the header says what goes in and out."""

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.contract.test_targets import CONVOLUTION, small_onnx, small_tflite
from toolchain import cli
from toolchain.embed import ARRAY_BYTES, embed
from toolchain.errors import CompressError
from toolchain.export._interface import Interface, Port

PROGRAM = """
#include <stdio.h>
#include <stdint.h>
#include "m.h"
int main(void) {
  if ((uintptr_t)m_data % M_ALIGN != 0) return 3;
  return fwrite(m_data, 1, M_SIZE, stdout) == M_SIZE ? 0 : 4;
}
"""


def linked(folder, compiler="gcc", flags=(), run=()):
    """What a program that links the sources in `folder` prints: the model."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (folder / "main.c").write_text(PROGRAM)
    sources = [p.name for p in folder.iterdir() if p.suffix in (".c", ".cc", ".S")]
    build = [compiler, "-Wall", "-Wextra", "-Werror", *flags, *sources, "-o", "program"]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return subprocess.run([*run, folder / "program"], capture_output=True, check=True).stdout


@pytest.mark.parametrize("form", ["cc", "asm"])
@pytest.mark.parametrize("kind", [small_onnx, small_tflite])
def test_the_program_holds_the_file(kind, form, tmp_path):
    model = kind(tmp_path / ("a.onnx" if kind is small_onnx else "a.tflite")).path
    found = embed(model, tmp_path / "src", name="m", form=form, align=64)
    assert found["form"] == form
    assert linked(tmp_path / "src") == model.read_bytes()
    assert f'"{hashlib.sha256(model.read_bytes()).hexdigest()}"' in (tmp_path / "src" / "m.h").read_text()


@pytest.mark.parametrize("compiler", ["aarch64-linux-gnu-gcc", "arm-linux-gnueabihf-gcc"])
@pytest.mark.parametrize("form", ["cc", "asm"])
def test_cross_compilers_take_the_sources(compiler, form, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    model = small_tflite(tmp_path / "a.tflite").path
    embed(model, tmp_path / "src", name="m", form=form)
    source = next(p for p in (tmp_path / "src").iterdir() if p.suffix in (".cc", ".S"))
    # As C: the cross-compilers of C++ are packages of their own.
    language = ["-x", "c"] if source.suffix == ".cc" else []
    words = [compiler, "-c", *language, source.name, "-o", "m.o"]
    subprocess.run(words, cwd=tmp_path / "src", check=True)
    assert model.read_bytes() in (tmp_path / "src" / "m.o").read_bytes()


def test_the_header_describes_inputs_and_outputs(tmp_path):
    model = small_tflite(tmp_path / "a.tflite").path
    embed(model, tmp_path)
    text = (tmp_path / "a.h").read_text()
    assert "#define A_INPUTS 1" in text
    assert f"#define A_INPUT_0_ELEMENTS {12 * 12 * CONVOLUTION.in_channels}u" in text
    assert f"#define A_INPUT_0_BYTES {4 * 12 * 12 * CONVOLUTION.in_channels}u" in text
    assert '#define A_OUTPUT_0_TYPE "float32"' in text
    assert "SCALE" not in text


def test_quantization_parameters_come_from_the_file(tmp_path):
    pytest.importorskip("ai_edge_litert")
    import numpy as np

    from targets._shared import probes_tflite

    path = tmp_path / "q.tflite"
    probes_tflite.write(CONVOLUTION, "int8", path)
    found = embed(path, tmp_path)["interface"]["inputs"][0]
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_path=str(path))
    detail = engine.get_input_details()[0]
    assert found["dtype"] == np.dtype(detail["dtype"]).name
    assert found["scale"] == pytest.approx(float(detail["quantization"][0]), rel=1e-9)
    assert found["zero_point"] == detail["quantization"][1]
    text = (tmp_path / "q.h").read_text()
    if found["scale"]:
        scale = next(line.split()[-1] for line in text.splitlines() if "INPUT_0_SCALE" in line)
        assert np.float32(scale.rstrip("f")) == np.float32(found["scale"])


def test_names_of_tensors_cannot_break_the_header(tmp_path, monkeypatch):
    model = small_tflite(tmp_path / "a.tflite").path
    odd = Port(name='x"\\ \n??/ é', dtype="int8", shape=(), scale=1.0, zero_point=-3)
    monkeypatch.setattr("toolchain.embed.read_interface", lambda _: Interface(inputs=(odd,), outputs=()))
    embed(model, tmp_path / "src", name="m")
    assert linked(tmp_path / "src", flags=("-trigraphs",)) == model.read_bytes()
    assert "#define M_INPUT_0_SCALE 1.0f" in (tmp_path / "src" / "m.h").read_text()


def test_the_same_file_gives_the_same_bytes_anywhere(tmp_path, monkeypatch):
    model = small_onnx(tmp_path / "a.onnx").path
    for form in ("cc", "asm"):
        for place in ("one", "two/deeper"):
            embed(model, tmp_path / place / form, form=form)
            monkeypatch.chdir(tmp_path / place)
        first, second = (
            {p.name: p.read_bytes() for p in (tmp_path / place / form).iterdir()}
            for place in ("one", "two/deeper")
        )
        assert first == second


def test_hundreds_of_megabytes_take_no_compiler(tmp_path, monkeypatch):
    model = small_tflite(tmp_path / "big.tflite").path
    with model.open("r+b") as file:
        file.truncate(300 * 2**20)
    found = embed(model, tmp_path / "src", name="m")
    assert found["form"] == "asm"
    assert found["size_bytes"] > ARRAY_BYTES
    start = time.process_time()
    gcc = shutil.which("gcc") or pytest.skip("no gcc")
    subprocess.run([gcc, "-c", "m.S", "-o", "m.o"], cwd=tmp_path / "src", check=True)
    assert time.process_time() - start < 60
    assert (tmp_path / "src" / "m.o").stat().st_size > 300 * 2**20


def test_two_networks_in_one_program_do_not_meet(tmp_path):
    pytest.importorskip("emx_onnx_cgen")
    gcc = shutil.which("gcc") or pytest.skip("no gcc")
    model = small_onnx(tmp_path / "a.onnx").path
    for name in ("one", "two"):
        found = embed(model, tmp_path, name=name, form="network")
        assert found["symbol"] == f"{name}_run"
        assert found["files"] == [f"{name}.h", f"{name}.c"]
    (tmp_path / "main.c").write_text(
        '#include "one.h"\n#include "two.h"\n#include <string.h>\n'
        "static float in[ONE_INPUT_0_ELEMENTS], a[ONE_OUTPUT_0_ELEMENTS], b[TWO_OUTPUT_0_ELEMENTS];\n"
        "int main(void) {\n  one_run((const void *[]){in}, (void *[]){a});\n"
        "  two_run((const void *[]){in}, (void *[]){b});\n  return memcmp(a, b, sizeof a) != 0;\n}\n"
    )
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    sources = ["main.c", "one.c", "two.c", "-lm"]
    subprocess.run([gcc, *flags, *sources, "-o", "program"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


def test_a_network_is_the_same_bytes_again(tmp_path):
    pytest.importorskip("emx_onnx_cgen")
    model = small_onnx(tmp_path / "a.onnx").path
    for place in ("one", "two"):
        embed(model, tmp_path / place, form="network")
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / x).iterdir()} for x in ("one", "two"))
    assert one == two
    assert str(tmp_path).encode() not in one["a.c"]


def test_an_operator_without_c_is_one_line(tmp_path, capsys):
    pytest.importorskip("emx_onnx_cgen")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    node = helper.make_node("Unheard", ["x"], ["y"], domain="nowhere")
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("nowhere", 1)]
    graph = helper.make_graph([node], "odd", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=domains), str(tmp_path / "odd.onnx"))
    words = ["embed", str(tmp_path / "odd.onnx"), "--form", "network", "--out", str(tmp_path / "src")]
    assert cli.main(words) == 5
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: odd.onnx cannot be turned into C:")
    assert "Unheard" in said[0]
    assert not (tmp_path / "src").exists()


def test_without_the_generator_the_extra_is_named(tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "emx_onnx_cgen", None)
    model = small_onnx(tmp_path / "a.onnx").path
    assert cli.main(["embed", str(model), "--form", "network", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "'emx_onnx_cgen'" in said
    assert "pip install 'edgefit[micro]'" in said


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["gone.tflite"], "no model at gone.tflite", 2),
        (["bad.tflite"], "is not a TFLite file", 5),
        (["a.txt"], "neither .tflite nor .onnx", 2),
        (["bad.tflite", "--form", "network"], "--form network takes .onnx files", 2),
        (["a.onnx", "--name", "1x"], "'1x' is no C name", 2),
        (["a.onnx", "--align", "12"], "no power of two", 2),
    ],
)
def test_bad_input_is_one_line(words, said, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_onnx(Path("a.onnx"))
    Path("bad.tflite").write_bytes(b"nothing of the kind")
    Path("a.txt").write_text("x")
    before = sorted(Path().iterdir())
    assert cli.main(["embed", *words]) == code
    assert said in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before


def test_a_broken_file_is_an_error_of_ours(tmp_path):
    model = small_tflite(tmp_path / "a.tflite").path
    model.write_bytes(model.read_bytes()[:60])
    with pytest.raises(CompressError):
        embed(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
