"""Flags to requests: defaults, every field, and what is refused."""

import dataclasses
from pathlib import Path

import pytest

from toolchain.cases import requests_of
from toolchain.errors import InputError
from toolchain.flags import parser_for, request_of
from toolchain.help_texts import COMMANDS
from toolchain.settings import Storage
from toolchain.values import Budget, Learning, Preprocessing, Request, Training


def parse(line, command="compress"):
    flags = parser_for(command, command).read(line.split())
    if command not in ("compress", "plan"):
        return request_of(flags, command)
    (request,) = requests_of(flags, command)
    return request


def cases(line, command="compress"):
    return requests_of(parser_for(command, command).read(line.split()), command)


def test_defaults_are_those_of_the_values():
    request = parse("model.pt2 --budget-ms 5")
    assert request == Request(
        model=Path("model.pt2"), target="host", out=Path("model-compressed"), budget=Budget(ms=5.0)
    )


EVERY_FLAG = (
    "m.pt2 --target board --budget-ms 1.5 --budget-mb 2 --budget-macs 20M --budget-params 250k "
    "--budget-neurons 1.5G --max-drop 0 --data d --classes cat,3 --mean 0.1,0.2 --std 0.3,0.4 --resize 8,16 "
    "--metric a.b:c --arch p.q:r --input-shape 1,3,32,32 --input-shape 1,4 --trust-pickle "
    "--criterion random --variety --rescale all --reestimate-bn --no-refit --connectivity always "
    "--allow-resize 12x24,16 --runtime litert --precision int8 "
    "--formats onnx,tflite --epochs 7 --method l0 --method-epochs 4 --transition exponential "
    "--lr-schedule one-cycle --label-smoothing 0.1 --ema 0.99 --clip 2 --mixed-precision --log l.csv "
    "--lr 0.5 --batch-size 9 --temperature 2 --distil-weight 0.3 --no-augment --threads 3 --seed 11 "
    "--out here --resume --finish --require-measured --budget-ram 65536 --calibration own.json --device ssh://pi@board"
)


def test_every_field_of_the_request_can_be_set():
    request = parse(EVERY_FLAG)
    assert request == Request(
        model=Path("m.pt2"),
        target="board",
        out=Path("here"),
        budget=Budget(ms=1.5, mb=2.0, macs=20_000_000, params=250_000, neurons=1_500_000_000, max_drop=0.0),
        data="d",
        preprocessing=Preprocessing(
            mean=(0.1, 0.2), std=(0.3, 0.4), resize=(8, 16), source="given by --mean and --std"
        ),
        classes=("cat", "3"),
        metric="a.b:c",
        arch="p.q:r",
        input_shape=((1, 3, 32, 32), (1, 4)),
        trust_pickle=True,
        criterion="random",
        variety=True,
        rescale="all",
        reestimate=True,
        refit=False,
        connectivity="always",
        allow_resize=((12, 24), (16, 16)),
        runtime="litert",
        precisions=("int8",),
        formats=("onnx", "tflite"),
        training=Training(
            epochs=7,
            batch_size=9,
            temperature=2.0,
            distil_weight=0.3,
            augment=False,
            seed=11,
            rate="one-cycle",
            smoothing=0.1,
            average=0.99,
            clip=2.0,
            half=True,
            log=Path("l.csv"),
        ),
        learning=Learning(method="l0", epochs=4, transition="exponential"),
        lr=0.5,
        threads=3,
        seed=11,
        resume=True,
        finish=True,
        require_measured=True,
        calibration=Path("own.json"),
        device="ssh://pi@board",
        budget_ram=65536,
    )
    plain = parse("m.pt2 --budget-ms 1")
    same = {f.name for f in dataclasses.fields(Request) if getattr(request, f.name) == getattr(plain, f.name)}
    assert same == {"model", "plan", "storage"}, "storage goes without int8: see below"


def test_method():
    assert parse("m.pt2 --budget-ms 1").learning == Learning()
    asked = parse("m.pt2 --budget-ms 1 --method bar --method-epochs 3 --transition linear").learning
    assert asked == Learning(method="bar", epochs=3, transition="linear")


def test_storage():
    assert parse("m.pt2 --budget-ms 1").storage is None
    asked = parse("m.pt2 --store palette:5 --sparsity 0.9 --palette-channels 8 --store-epochs 3")
    assert asked.storage == Storage(form="palette:5", sparsity=0.9, run=8, epochs=3)
    assert asked.precisions == ("fp32",)
    assert asked.budget == Budget()
    assert parse("m.pt2 --sparsity 0.5 --sparsity-schedule one-cycle").storage == Storage(
        form="plain", sparsity=0.5, schedule="one-cycle"
    )
    assert parse("m.pt2 --store fixed:2.6 --rounding stochastic").storage.rounding == "stochastic"


def test_schedule():
    assert parse("m.pt2 --budget-ms 1").training.schedule == "one-shot"
    assert parse("m.pt2 --budget-ms 1 --schedule agp").training.schedule == "agp"


def test_plan_can_be_applied_without_a_budget():
    request = parse("m.pt2 --apply p.json", "plan")
    assert (request.plan, request.out) == (Path("p.json"), Path("m-compressed"))
    assert request.formats == ("onnx", "coreml", "tflite")
    assert parse("m.pt2 --budget-ms 1", "plan").out == Path("m-plan")


def test_several_budgets_and_targets_are_cases_with_folders_of_their_own():
    found = cases("m.pt2 --target host,iphone:iphone-12 --budget-ms 30,2.5 --budget-params 250k --out o")
    assert [(r.target, r.budget.ms, str(r.out)) for r in found] == [
        ("host", 30.0, "o/host-ms-30-params-250k"),
        ("host", 2.5, "o/host-ms-2.5-params-250k"),
        ("iphone:iphone-12", 30.0, "o/iphone-iphone-12-ms-30-params-250k"),
        ("iphone:iphone-12", 2.5, "o/iphone-iphone-12-ms-2.5-params-250k"),
    ]
    assert len({dataclasses.replace(r, target="", budget=Budget(), out=Path()) for r in found}) == 1
    assert [str(r.out) for r in cases("m.pt2 --budget-mb 2,1", "plan")] == [
        "m-plan/host-mb-2",
        "m-plan/host-mb-1",
    ]


@pytest.mark.parametrize(
    ("value", "name"),
    [("20M", "20M"), ("1.5G", "1.5G"), ("1500k", "1.5M"), ("123456789", "123456789"), ("999", "999")],
)
def test_a_folder_names_its_amount_exactly(value, name):
    assert cases(f"m.pt2 --budget-macs {value},1")[0].out.name == f"host-macs-{name}"


def test_one_value_is_one_case_and_repeated_values_are_one():
    assert str(parse("m.pt2 --budget-ms 5,5.0 --target host,host").out) == "m-compressed"


def test_smaller_images_by_share_or_by_size():
    line = "m.pt2 --budget-ms 1 --data d --allow-resize"
    assert parse(line).allow_resize == 0.5
    assert parse(f"{line} 0.8").allow_resize == 0.8
    assert parse(f"{line} 160,128").allow_resize == ((160, 160), (128, 128))


def test_bench_and_inspect_need_no_budget():
    assert parse("m.pt2 --data d", "bench").budget == Budget()
    assert parse("m.pt2 --input-shape 1,2", "inspect").input_shape == ((1, 2),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("m.pt2", "no budget given"),
        ("m.pt2 --max-drop 1", "no budget given"),
        ("", "required: model"),
        ("m.pt2 --budget-ms -1", "--budget-ms: '-1' is not a number above zero"),
        ("m.pt2 --budget-ms 0", "--budget-ms"),
        ("m.pt2 --budget-ms nan", "--budget-ms"),
        ("m.pt2 --budget-ms inf", "--budget-ms"),
        ("m.pt2 --budget-ms five", "--budget-ms"),
        ("m.pt2 --budget-ms", "--budget-ms"),
        ("m.pt2 --budget-mb -2", "--budget-mb"),
        ("m.pt2 --budget-macs 20X", "--budget-macs"),
        ("m.pt2 --budget-macs 0M", "--budget-macs"),
        ("m.pt2 --budget-params -3", "--budget-params"),
        ("m.pt2 --budget-params 1e400", "--budget-params"),
        ("m.pt2 --budget-ms 1 --max-drop -1", "--max-drop"),
        ("m.pt2 --budget-ms 1 --precision fp33", "'fp33' is not one of"),
        ("m.pt2 --budget-ms 1 --formats ,", "--formats"),
        ("m.pt2 --budget-ms 1 --input-shape 1,3,x", "--input-shape"),
        ("m.pt2 --budget-ms 1 --input-shape 1,,3", "--input-shape"),
        ("m.pt2 --budget-ms 1 --input-shape 1,0,3", "--input-shape"),
        ("m.pt2 --budget-ms 1 --epochs -1", "--epochs"),
        ("m.pt2 --budget-ms 1 --epochs 1.5", "--epochs"),
        ("m.pt2 --budget-ms 1 --lr 0", "--lr"),
        ("m.pt2 --budget-ms 1 --batch-size 0", "--batch-size"),
        ("m.pt2 --budget-ms 1 --temperature 0", "--temperature"),
        ("m.pt2 --budget-ms 1 --distil-weight 1.1", "--distil-weight"),
        ("m.pt2 --budget-ms 1 --threads 0", "--threads"),
        ("m.pt2 --budget-ms 1 --seed -1", "--seed"),
        ("m.pt2 --budget-ms 1 --data d --std 0,1,1", "--std"),
        ("m.pt2 --budget-ms 1 --data d --mean 0,0 --std 1,1,1", "--mean has 2 values and --std has 3"),
        ("m.pt2 --budget-ms 1 --data d --resize 1,2,3", "--resize"),
        ("m.pt2 --budget-ms 1 --mean 0,0,0", "there is no --data"),
        ("m.pt2 --budget-ms 1 --reestimate-bn", "there is no --data"),
        ("m.pt2 --budget-ms 1 --allow-resize", "there is no --data"),
        ("m.pt2 --budget-ms 1 --data d --allow-resize 1.5", "--allow-resize"),
        ("m.pt2 --budget-ms 1 --rescale some", "--rescale"),
        ("m.pt2 --budget-ms 1,", "'1,' is not a list"),
        ("m.pt2 --budget-ms 1,-2", "'-2' is not a number above zero"),
        ("m.pt2 --budget-macs 1M,2X", "'2X' is not an amount"),
        (
            "m.pt2 --budget-ms 1,2 --budget-macs 1M,2M",
            "--budget-ms and --budget-macs have several values each",
        ),
        ("m.pt2 --budget-ms 1 --target ,", "--target: ',' names nothing"),
        ("m.pt2 --budget-m 1", "unknown argument '--budget-m'"),
        ("m.pt2 n.pt2 --budget-ms 1", "unknown argument 'n.pt2'"),
    ],
)
def test_refused_with_the_flag_named(line, said):
    with pytest.raises(InputError) as caught:
        parse(line)
    assert said in caught.value.message


def test_a_saved_plan_is_for_one_case():
    with pytest.raises(InputError) as caught:
        cases("m.pt2 --apply p.json --target host,iphone", "plan")
    assert "a saved plan is for one case" in caught.value.message


def test_a_misspelt_flag_gets_a_suggestion():
    with pytest.raises(InputError) as caught:
        parse("m.pt2 --bugdet-ms 1")
    assert "did you mean --budget-ms?" in caught.value.hint


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit):
        parser_for(command, f"edgefit {command}").read(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit codes:" in text
    assert max(map(len, text.splitlines())) <= 110
