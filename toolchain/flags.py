"""The command line's flags and what they mean: text -> `Request`."""

from __future__ import annotations

import argparse
from pathlib import Path

from toolchain import __version__, registry
from toolchain.errors import InputError
from toolchain.flag_devices import add_bundle, add_device, add_prediction, add_target, device_of
from toolchain.flag_gate import GATING, add_gate_flags
from toolchain.flag_learning import add_learning, learning_of
from toolchain.flag_parser import Parser
from toolchain.flag_storage import add_restore, add_storage, storage_of
from toolchain.flag_training import add_training, training_of
from toolchain.flag_values import (
    METRICS,
    SMALLEST_SHARE,
    amounts,
    at_least_one,
    integers,
    limits,
    names,
    not_negative,
    not_negative_integer,
    numbers,
    picture_file,
    positive_numbers,
    side_lengths,
    smaller_sides,
)
from toolchain.help_texts import COMMANDS, EXAMPLES, EXIT_CODES
from toolchain.values import Budget, Learning, Precision, Preprocessing, Request, Training


def parser_for(command: str, prog: str) -> Parser:
    """The parser of one sub-command, called `prog` in its help."""
    parser = Parser(
        prog=prog,
        description=COMMANDS[command][0].upper() + COMMANDS[command][1:] + ".",
        epilog=f"{EXAMPLES[command]}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if command in ("compress", "bench", "predict", "inspect", "plan"):
        _add_model(parser, command)
    if command == "calibrate":
        parser.add_argument("measurements", type=Path, help="CSV file with the columns model and ms")
        parser.add_argument(
            "--trust-pickle", action="store_true", help="let pickled networks run their code while loaded"
        )
    if command in ("predict", "calibrate"):
        add_prediction(parser, command)
    if command in ("compress", "bench", "plan"):
        add_target(parser, command)
        _add_data(parser, command)
    if command in ("compress", "plan"):
        _add_budget(parser)
        _add_pruning(parser)
        if command == "compress":
            add_learning(parser)
        add_training(parser)
        if command == "compress":
            add_storage(parser)
    if command == "plan":
        parser.add_argument("--apply", type=Path, metavar="PLAN", help="carry out this saved plan.json")
    if command == "bench":
        add_device(parser)
    if command == "doctor":
        parser.add_argument("--target", metavar="NAME", help="what measuring on this target or device needs")
    if command == "runner":
        add_bundle(parser)
    if command == "restore":
        add_restore(parser)
    if command in GATING:
        add_gate_flags(parser, command)
    _add_output(parser, command)
    return parser


def _add_model(parser: Parser, command: str) -> None:
    group = parser.add_argument_group("the network")
    group.add_argument(
        "model",
        type=Path,
        help="torch.export archive (.pt2), TorchScript, pickled module or state dict"
        + (", or an .onnx, .tflite or .mlpackage file" if command == "bench" else ""),
    )
    group.add_argument(
        "--arch", metavar="PACKAGE.MODULE:FUNCTION", help="builds the network that a state dict belongs to"
    )
    group.add_argument(
        "--input-shape",
        type=integers,
        action="append",
        metavar="1,3,32,32",
        help="shape of an input where the file does not carry it; once for every input",
    )
    group.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let a pickled file run its code while it is loaded: only for files you trust",
    )


def _add_data(parser: Parser, command: str) -> None:
    group = parser.add_argument_group("the data")
    group.add_argument(
        "--data",
        metavar="DIR|NPZ|MODULE:FUNCTION",
        help="folder with train/ and val/, one folder a class; .npz with x and y; or a function "
        "that returns the two loaders. Without it accuracy is not measured",
    )
    group.add_argument("--mean", type=numbers, help="per channel, images in 0-1 (ImageNet's)")
    group.add_argument("--std", type=positive_numbers, help="per channel, images in 0-1 (ImageNet's)")
    group.add_argument("--resize", type=side_lengths, metavar="H,W", help="resize images (the input's size)")
    group.add_argument("--metric", default="top1", help=METRICS)
    if command != "bench":
        group.add_argument(
            "--classes",
            type=names,
            default=(),
            metavar="NAME,...",
            help="specialise on these classes, names or numbers: head reduced, data filtered (all)",
        )


def _add_budget(parser: Parser) -> None:
    group = parser.add_argument_group(
        "the budget: hard limits, alone or together",
        "One of them may be a list (30,20,10): each value is a case with a folder in DIR, all in one run.",
    )
    group.add_argument("--budget-ms", type=limits, metavar="MS,...", help="median latency on the target")
    group.add_argument(
        "--budget-mb", type=limits, metavar="MB,...", help="size of the model file, 10^6 bytes"
    )
    group.add_argument(
        "--budget-macs", type=amounts, metavar="N,...", help="multiply-accumulates, e.g. 20M, 1.5G"
    )
    group.add_argument("--budget-params", type=amounts, metavar="N,...", help="parameters, e.g. 250k")
    group.add_argument("--budget-neurons", type=amounts, metavar="N,...", help="activation volume, e.g. 100k")
    group.add_argument(
        "--max-drop", type=not_negative, metavar="POINTS", help="most that the metric may lose"
    )
    group.add_argument(
        "--budget-ram",
        type=at_least_one,
        metavar="BYTES",
        help="arena in which TFLite Micro has to run the TFLite file: checked in the end, not planned for",
    )
    group.add_argument(
        "--require-measured", action="store_true", help="exit 1 where the latency is only predicted"
    )


def _add_pruning(parser: Parser) -> None:
    group = parser.add_argument_group("pruning")
    known = ", ".join(registry.names("toolchain.prune.criteria"))
    group.add_argument(
        "--criterion",
        default="auto",
        metavar="NAME",
        help=f"what scores channels: {known} (auto: taylor with data, else magnitude)",
    )
    variety = "channels whose filters are like those of a better channel score less, with any criterion"
    group.add_argument("--variety", action="store_true", help=variety)
    group.add_argument(
        "--rescale",
        choices=("linear", "all"),
        default="none",
        help="multiply the weights of layers that lost inputs (fully connected ones, or all) by the inverse "
        "of the share that is left: the weight inference rule of dropout",
    )
    group.add_argument(
        "--reestimate-bn",
        action="store_true",
        help="estimate batch-norm statistics anew after the cut, before fine-tuning; needs --data",
    )
    group.add_argument(
        "--connectivity",
        choices=("tied", "mixed", "always"),
        default="tied",
        help="mixed: branches of an addition may keep different channels where that costs less and the "
        "target is not slower for it; always: even if it is (tied: the same channels)",
    )
    no_refit = "do not fit the cut network's weights to the original's outputs before fine-tuning"
    group.add_argument("--no-refit", action="store_true", help=no_refit)
    group.add_argument(
        "--allow-resize",
        type=smaller_sides,
        nargs="?",
        const=SMALLEST_SHARE,
        metavar="SHARE|SIZES",
        help="smaller images too: down to this share of their sides "
        f"({SMALLEST_SHARE:g}), or to these sizes, e.g. 192,160 or 96x128; needs --data",
    )
    group.add_argument(
        "--formats",
        type=names,
        default=("onnx", "coreml", "tflite"),
        metavar="onnx,coreml,tflite",
        help="files to write (all three)",
    )


def _add_output(parser: Parser, command: str) -> None:
    group = parser.add_argument_group("output")
    if command == "inspect":
        group.add_argument(
            "--picture",
            type=picture_file,
            metavar="FILE.svg|FILE.html",
            help="draw the graph coloured by channel group; .html can be searched and zoomed",
        )
    if command in ("compress", "plan"):
        ending = "compressed" if command == "compress" else "plan"
        group.add_argument("--out", type=Path, metavar="DIR", help=f"result folder (MODELNAME-{ending})")
        group.add_argument("--seed", type=not_negative_integer, default=0, help="of everything random (0)")
    if command == "calibrate":
        group.add_argument("--out", type=Path, metavar="FILE", required=True, help="where the model goes")
    group.add_argument("--json", action="store_true", help="print the record as JSON")
    group.add_argument("--quiet", action="store_true", help="no progress")
    group.add_argument("--debug", action="store_true", help="show traceback and third-party output")
    group.add_argument("--version", action="version", version=f"edgefit {__version__}")


def request_of(flags: argparse.Namespace, command: str) -> Request:
    """The request that parsed flags make; of `compress` and `plan`, the flags of one case.

    Raises:
        InputError: no budget where one is needed, or flags that contradict each other.
    """
    if command in ("inspect", "predict", "calibrate"):
        return _request_without_run(flags, command)
    deciding = command in ("compress", "plan")
    applying = command == "plan" and flags.apply is not None
    budget = budget_of(flags) if deciding else Budget()
    storage = storage_of(flags) if command == "compress" else None
    if deciding and not applying and storage is None:
        _require_limit(budget)
    if deciding and flags.reestimate_bn and flags.data is None:
        raise InputError("--reestimate-bn looks at training samples, but there is no --data")
    if deciding and flags.allow_resize is not None and flags.data is None:
        raise InputError("--allow-resize compares images of several sizes, but there is no --data")
    formats = flags.formats if command == "compress" or applying else ()
    return Request(
        model=flags.model,
        target=flags.target,
        out=_out(flags, command) if deciding else Path("bench"),
        budget=budget,
        data=flags.data,
        preprocessing=preprocessing_of(flags),
        classes=flags.classes if deciding else (),
        metric=flags.metric,
        arch=flags.arch,
        input_shape=_input_shape(flags),
        trust_pickle=flags.trust_pickle,
        criterion=flags.criterion if deciding else "auto",
        variety=deciding and flags.variety,
        rescale=flags.rescale if deciding else "none",
        reestimate=deciding and flags.reestimate_bn,
        refit=not (deciding and flags.no_refit),
        connectivity=flags.connectivity if deciding else "tied",
        allow_resize=flags.allow_resize if deciding else None,
        runtime=flags.runtime,
        precisions=flags.precision if storage is None else _float_only(flags.precision),
        formats=formats,
        training=training_of(flags) if deciding else Training(),
        learning=learning_of(flags) if command == "compress" else Learning(),
        storage=storage,
        lr=flags.lr if deciding else None,
        threads=flags.threads,
        seed=flags.seed if deciding else 0,
        resume=deciding and flags.resume,
        finish=deciding and flags.finish,
        plan=flags.apply if applying else None,
        calibration=flags.calibration if deciding else None,
        device=device_of(flags) if deciding else None,
        budget_ram=flags.budget_ram if deciding else None,
        require_measured=deciding and flags.require_measured,
    )


def _float_only(asked: tuple[Precision, ...]) -> tuple[Precision, ...]:
    """Stored weights are those of float files: nothing else competes; without float it is refused later."""
    return ("fp32",) if "fp32" in asked else asked


def _request_without_run(flags: argparse.Namespace, command: str) -> Request:
    """The request of a command that measures, cuts and trains nothing."""
    shown = command == "inspect"
    calibrating = command == "calibrate"
    return Request(
        model=flags.measurements if calibrating else flags.model,
        target="host" if shown else flags.target,
        runtime="auto" if shown else flags.runtime,
        precisions=() if shown else flags.precision,
        out=flags.out if calibrating else Path(command),
        budget=Budget(),
        arch=None if calibrating else flags.arch,
        input_shape=None if calibrating else _input_shape(flags),
        trust_pickle=flags.trust_pickle,
    )


def _input_shape(flags: argparse.Namespace) -> tuple[tuple[int, ...], ...] | None:
    return tuple(flags.input_shape) if flags.input_shape else None


def budget_of(flags: argparse.Namespace) -> Budget:
    """The limits among the flags."""
    return Budget(
        ms=flags.budget_ms,
        mb=flags.budget_mb,
        macs=flags.budget_macs,
        params=flags.budget_params,
        neurons=flags.budget_neurons,
        max_drop=flags.max_drop,
    )


def preprocessing_of(flags: argparse.Namespace) -> Preprocessing:
    """How images become inputs; its `source` says whether mean and std were given."""
    if flags.data is None and (flags.mean or flags.std or flags.resize):
        raise InputError("--mean, --std and --resize describe images, but there is no --data")
    known = Preprocessing()
    mean, std = flags.mean or known.mean, flags.std or known.std
    if len(mean) != len(std):
        raise InputError(
            f"--mean has {len(mean)} values and --std has {len(std)}", hint="give one for each channel"
        )
    given = [name for name, value in (("--mean", flags.mean), ("--std", flags.std)) if value]
    source = f"given by {' and '.join(given)}" if given else known.source
    return Preprocessing(mean=mean, std=std, resize=flags.resize, source=source)


def _require_limit(budget: Budget) -> None:
    limits = (budget.ms, budget.mb, budget.macs, budget.params, budget.neurons)
    if all(limit is None for limit in limits):
        raise InputError(
            "no budget given",
            hint="say what the network must hold: --budget-ms, --budget-mb, --budget-macs, "
            "--budget-params or --budget-neurons",
        )


def _out(flags: argparse.Namespace, command: str) -> Path:
    if flags.out is not None:
        return Path(flags.out)
    planning = command == "plan" and flags.apply is None
    return Path(f"{Path(flags.model).stem}-{'plan' if planning else 'compressed'}")
