"""One network, written as Core ML and interpreted beside the program itself.

A network of the coverage benchmark is written in float32 as it is and pruned as there (half, uneven), and in
fp16 as it is. A trained one is written in fp16, with int8 weights, palettized and sparse. What was found is
handed to `keep` before each step, so that what a crash or the time limit leaves is not lost.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.coverage import zoo
from benchmarks.coverage.exports import without_folders
from benchmarks.coverage.oracle import half, uneven
from toolchain.coreml_package import save
from toolchain.errors import CompressError
from toolchain.export import coreml
from toolchain.foreign import quiet
from toolchain.load import load
from toolchain.program.capture import capture, example_inputs
from toolchain.program.channels import analyse
from toolchain.program.lower import lower
from toolchain.program.rewrite import apply
from toolchain.train.data import open_data
from toolchain.values import Precision, Preprocessing, Program
from toolchain.verify.mil.execution import interpreter
from toolchain.verify.mil.refusal import Refused
from toolchain.verify.parity import reference, relative_error, snr_db

SAMPLES: Final = 2
TRAINED_SAMPLES: Final = 64
Found = dict[str, Any]
Arrays = tuple[Any, ...]


def network(name: str, keep: Callable[[Found], None], *, fp16: bool = True) -> Found:
    """The float32 files of a network of the zoo and, if asked, its fp16 file."""
    module, shape = zoo.build(name)
    program = capture(module, (torch.randn(SAMPLES, *shape),), name=name)
    channels = analyse(program)
    inputs = tuple(x.numpy() for x in example_inputs(program, SAMPLES, seed=1))
    makers: Mapping[str, Callable[[], Program]] = {
        "original": lambda: program,
        "half": lambda: apply(program, channels, half(channels)),
        "uneven": lambda: apply(program, channels, uneven(channels)),
    }
    found: Found = {"status": "unfinished", "files": {}}
    wanted: Sequence[tuple[str, Precision]] = (
        ("original", "fp32"),
        ("half", "fp32"),
        ("uneven", "fp32"),
        *((("original", "fp16"),) if fp16 else ()),
    )
    for variant, precision in wanted:
        found["step"] = f"{variant} {precision}"
        keep(found)
        found["files"][found["step"]] = of_program(makers[variant](), precision, inputs)
        found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**found, "status": "finished"}


def trained(path: Path, data: str | None, keep: Callable[[Found], None]) -> Found:
    """fp16 and compressed files of a trained network, on real images where there are any."""
    program = load(path)
    inputs = tuple(x.numpy() for x in example_inputs(program, TRAINED_SAMPLES, seed=1))
    if data is not None:
        opened = open_data(data, preprocessing=Preprocessing(), program_inputs=program.inputs)
        inputs = tuple(x.numpy() for x in opened.calibration(TRAINED_SAMPLES)[0])
    found: Found = {"status": "unfinished", "files": {}, "inputs": "noise" if data is None else "images"}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float.mlpackage"
        found["files"]["fp16"] = of_program(program, "fp16", inputs, source)
        for name, change in _compressions().items():
            keep(found)
            file = Path(folder) / f"{name}.mlpackage"
            with quiet():
                changed = change(_opened(source))
            save(changed, file)
            found["files"][name] = {"status": "written", **compared(file, program, inputs)}
    return {**found, "status": "finished"}


def _opened(path: Path) -> Any:
    import coremltools as ct

    return ct.models.MLModel(str(path), skip_model_load=True)


def _compressions() -> Mapping[str, Callable[[Any], Any]]:
    from coremltools.optimize import coreml as cto

    def linear(model: Any) -> Any:
        config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=512)
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))

    def palettized(model: Any) -> Any:
        config = cto.OpPalettizerConfig(mode="uniform", nbits=6, weight_threshold=512)
        return cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))

    def sparse(model: Any) -> Any:
        config = cto.OpMagnitudePrunerConfig(target_sparsity=0.3, weight_threshold=512)
        return cto.prune_weights(model, cto.OptimizationConfig(global_config=config))

    return {"int8 weights": linear, "6-bit palette": palettized, "30 % zeros": sparse}


def of_program(program: Program, precision: Precision, inputs: Arrays, path: Path | None = None) -> Found:
    """The file of a program, written and compared, or the cause of its failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = path or Path(folder) / "model.mlpackage"
        try:
            started = time.process_time()
            coreml.write(lower(program), path, {}, precision=precision)
            seconds = time.process_time() - started
        except CompressError as error:
            return {"status": "refused by the converter", "reason": without_folders(str(error))}
        return {"status": "written", "write_s": seconds, **compared(path, program, inputs)}


def compared(path: Path, program: Program, inputs: Arrays) -> Found:
    """Errors of the interpreted file over all outputs, and what interpreting took."""
    try:
        opened = interpreter(path)
        started = time.process_time()
        outputs = opened.run(inputs)
        seconds = (time.process_time() - started) / len(inputs[0])
    except Refused as error:
        return {"refused": without_folders(str(error))}
    pairs = list(zip(outputs, reference(program, inputs), strict=True))
    return {
        "relative_error": max(relative_error(a, b) for a, b in pairs),
        "snr_db": min(snr_db(a, b) for a, b in pairs),
        "sample_s": seconds,
        "operators": len([o for o in opened.program.operations if o.kind != "const"]),
    }
