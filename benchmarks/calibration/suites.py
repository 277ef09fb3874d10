"""Which published rows calibrate which device: selection, names and the terms of each kind of processor."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.calibration.fit import Strength
from benchmarks.calibration.networks import NCNN, canonical

DERIVED: Final = "derived, not verified by MLCommons"
_CPU: Final = (
    "gemm.macs", "dense.macs", "pointwise.macs", "matrix.macs", "stem.macs", "grouped.macs", "depthwise.macs",
    "product.macs", "scores", "weights", "dense.traffic", "depthwise.traffic", "activation.traffic",
    "norm.traffic", "other.traffic", "calls", "activation.calls", "other.calls", "joined",
)  # fmt: skip
_NEURAL_ENGINE: Final = (
    "gemm.macs", "matrix.macs", "scores", "weights", "dense.traffic", "depthwise.traffic",
)  # fmt: skip
_GPU: Final = (
    "gemm.macs", "weights", "dense.traffic", "depthwise.traffic", "other.traffic", "activation.traffic",
    "calls", "joined",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published latency of a network whose definition is public."""

    key: str
    model: str
    variant: str
    device: str
    chip: str
    engine: str
    accelerator: str
    precision: str
    threads: int | None
    ms: float
    statistic: str
    url: str
    path: str
    date: str

    @property
    def group(self) -> tuple[str, str, str, int | None]:
        """Rows of one group share coefficients: device, engine with its version, precision, threads."""
        return (self.variant, self.engine, self.precision, self.threads)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Groups that are fitted together, since they run one engine on related processors."""

    target: str
    runtime: str
    terms: tuple[str, ...]
    align: int
    strength: Strength
    pick: Callable[[dict[str, str]], str | None]
    """The variant that a row of the table belongs to; None where it is another suite's."""
    precisions: tuple[tuple[str, str], ...]
    """(pattern of the table's precision, the product's name for it)"""
    fewest: int = 3
    """Groups of fewer networks are not shipped."""


def _phone(row: dict[str, str]) -> str | None:
    found = re.fullmatch(r"iPhone (\d+)( Pro)?( Max)?", row["device"])
    if row["runtime"] != "Core ML" or found is None:
        return None
    # A14 in all iPhone 12, A15 in iPhone 14; A16 and A17 differ by less than their rows scatter.
    if found[1] == "12":
        return "iphone-12"
    return "iphone-14-pro" if found[2] else {"14": "iphone-14"}.get(found[1])


def _jetson(row: dict[str, str]) -> str | None:
    if "TensorRT" not in row["runtime"] or "Jetson" not in row["device"] or "MaxQ" in row["device"]:
        return None
    for name in ("AGX Orin", "Orin Nano", "AGX Xavier", "Xavier NX", "Nano"):
        if name in row["device"]:
            return name.lower().replace(" ", "-")
    return None


_BOARDS: Final = (
    (r"Raspberry Pi 4 Model B Rev.*", "raspberry-pi-4"),
    (r"Raspberry Pi 4 (\[fan on\]|\[fan off\]|\(rpi4\))", "raspberry-pi-4-1500mhz"),
    (r"Firefly-RK3399.*", "firefly-rk3399"),
    (r"Odroid N2\+.*", "odroid-n2"),
    (r"Khadas VIM4.*", "khadas-vim4"),
    (r"Linaro HiKey960.*", "hikey-960"),
    (r"Firefly-RK3588S.*", "firefly-rk3588s"),
)
_NCNN_BOARDS: Final = (
    (r"Raspberry Pi 3 Model B\+.*", "raspberry-pi-3"),
    (r"Raspberry Pi Zero 2 W.*", "raspberry-pi-zero-2"),
    (r"AXERA AX630C", "axera-ax630c"),
    (r"EAIDK 310.*", "eaidk-310"),
    (r"NanoPi R2S.*", "nanopi-r2s"),
    (r"OrangePi Zero 2.*", "orangepi-zero-2"),
    (r"RDK X3.*", "rdk-x3"),
    (r"Arduino UNO Q.*", "arduino-uno-q"),
    (r"OrangePicm4.*", "rockchip-rk3566"),
    (r"Rock3A.*", "rock-3a"),
    (r"Station P2.*", "station-p2"),
    (r"Avaota Aim T527.*", "allwinner-t527"),
    (r"MYIR RemiPi.*", "renesas-rzg2l"),
    (r"Radxa Zero 3W", "radxa-zero-3w"),
    (r"Raspberry Pi 4 Model B Broadcom.*", "raspberry-pi-4"),
    (r"Rockchip RK3399", "rockchip-rk3399"),
    (r"OrangePi4 LTS.*", "orangepi-4"),
    (r"Khadas VIM3.*", "khadas-vim3"),
    (r"Raspberry Pi 5 Broadcom BCM2712", "raspberry-pi-5"),
    (r"Rockchip RK3588", "rockchip-rk3588"),
    (r"OrangePi5.*", "orangepi-5"),
)
_NCNN_PHONES: Final = (
    (r"Kirin 970", "kirin-970"),
    (r"MediaTek Dimensity 9300", "dimensity-9300"),
    (r"Qualcomm MSM6150 Snapdragon 675", "snapdragon-675"),
    (r"Qualcomm MSM8916 Snapdragon 410", "snapdragon-410"),
    (r"Qualcomm MSM8994 Snapdragon 810", "snapdragon-810"),
    (r"Qualcomm MSM8996 Pro Snapdragon 821", "snapdragon-821"),
    (r"Qualcomm MSM8998 Snapdragon 835", "snapdragon-835"),
    (r"Qualcomm SDM660 Snapdragon 660", "snapdragon-660"),
    (r"Qualcomm SDM765G Snapdragon 765G", "snapdragon-765g"),
    (r"Qualcomm SM8150-AC Snapdragon 855\+", "snapdragon-855"),
    (r"Qualcomm SM8550-AB Snapdragon 8 Gen 2", "snapdragon-8-gen-2"),
    (r"Qualcomm Snapdragon 888", "snapdragon-888"),
)


def _named(device: str, names: Sequence[tuple[str, str]]) -> str | None:
    return next((name for pattern, name in names if re.fullmatch(pattern, device)), None)


def _board(row: dict[str, str]) -> str | None:
    if not row["runtime"].startswith("TFLite v"):
        return None
    return _named(row["device"], _BOARDS)


_HALF: Final = frozenset(
    ("allwinner-t527", "orangepi-5", "radxa-zero-3w", "raspberry-pi-5", "renesas-rzg2l", "rock-3a",
     "rockchip-rk3566", "rockchip-rk3588", "station-p2", "dimensity-9300", "snapdragon-675",
     "snapdragon-765g", "snapdragon-855", "snapdragon-8-gen-2", "snapdragon-888")
)  # fmt: skip
"""Processors that calculate in fp16 (ARMv8.2): ncnn uses other kernels there, costs are not alike."""


def _ncnn(names: Sequence[tuple[str, str]], *, half: bool) -> Callable[[dict[str, str]], str | None]:
    def pick(row: dict[str, str]) -> str | None:
        if row["runtime"] != "ncnn benchncnn" or row["accelerator"] != "CPU":
            return None
        variant = _named(row["device"], names)
        return variant if (variant in _HALF) == half else None

    return pick


def _ncnn_suite(target: str, names: Sequence[tuple[str, str]], *, half: bool) -> Suite:
    return Suite(
        target=target,
        runtime="ncnn",
        terms=_CPU,
        align=8,
        pick=_ncnn(names, half=half),
        strength=Strength(shared=1e-2, own=1e-1, scale=1e-4),
        precisions=(("ncnn default.*", "fp16"), ("int8", "int8")),
        fewest=5,
    )


def _android(row: dict[str, str]) -> str | None:
    """Pixels through TFLite and XNNPACK's own benchmark. Whole milliseconds below 10 are too coarse."""
    if row["accelerator"] != "CPU" or not row["device"].startswith("Pixel"):
        return None
    if "rounded to ms" in row["metric"] and float(row["latency_ms"]) < 10:
        return None
    number = row["device"].removeprefix("Pixel").strip() or "1"
    return f"pixel-{number}"


def _paddle(row: dict[str, str]) -> str | None:
    if row["runtime"] == "Paddle Lite" and row["device"] == "SD855 phone":
        return "snapdragon-855"
    return None


_FLOAT: Final = (("fp32", "fp32"),)
_CPU_TYPES: Final = (("fp32", "fp32"), ("int8", "int8"))
SUITES: Final = (
    Suite(
        target="iphone", runtime="coreml", terms=_NEURAL_ENGINE, align=1, pick=_phone,
        strength=Strength(shared=1e-2, own=1e-2, scale=1e-1, fewest=3, usual=0.1),
        precisions=(("fp16", "fp16"), ("w8a8", "int8"),
                    (r"w8 \(weight-only\)|8 bit palettized", "int8-weights")),
    ),
    Suite(
        target="jetson", runtime="tensorrt", terms=_GPU, align=8, pick=_jetson,
        strength=Strength(shared=1e-4, own=1e-3, scale=1e-2, fewest=5, usual=0.03),
        precisions=(("fp16", "fp16"), ("int8.*", "int8")),
    ),
    Suite(
        target="traffic-camera", runtime="litert", terms=_CPU, align=8, pick=_board,
        strength=Strength(shared=1e-4, own=1e-2, scale=1e-4), precisions=_CPU_TYPES, fewest=8,
    ),
    _ncnn_suite("traffic-camera", _NCNN_BOARDS, half=False),
    _ncnn_suite("traffic-camera", _NCNN_BOARDS, half=True),
    Suite(
        target="android", runtime="litert", terms=_CPU, align=8, pick=_android,
        strength=Strength(shared=1e-3, own=1e-1, scale=1e-3), precisions=_CPU_TYPES, fewest=4,
    ),
    Suite(
        target="android", runtime="paddle-lite", terms=_CPU, align=8, pick=_paddle,
        strength=Strength(shared=1e-4, own=1e-2, scale=1e-4), precisions=_FLOAT, fewest=8,
    ),
    _ncnn_suite("android", _NCNN_PHONES, half=False),
    _ncnn_suite("android", _NCNN_PHONES, half=True),
)  # fmt: skip


_NO_ANE: Final = (
    "no neural engine latency of this phone is published for a network that can be rebuilt; the newest that "
    "there is a model of is iphone-15-pro"
)
NAMES: Final = {
    "iphone": {
        "default": "iphone-12",
        "aliases": {
            **dict.fromkeys(("iphone-12-mini", "iphone-12-pro", "iphone-12-pro-max"), "iphone-12"),
            **dict.fromkeys(
                ("iphone-13", "iphone-13-mini", "iphone-13-pro", "iphone-13-pro-max", "iphone-14-plus",
                 "iphone-se-3"),
                "iphone-14",
            ),
            **dict.fromkeys(
                ("iphone-14-pro-max", "iphone-15", "iphone-15-plus", "iphone-15-pro", "iphone-15-pro-max"),
                "iphone-14-pro",
            ),
        },
        "absent": dict.fromkeys(
            ("iphone-16", "iphone-16-plus", "iphone-16-pro", "iphone-16-pro-max", "iphone-17", "iphone-air",
             "iphone-17-pro", "iphone-17-pro-max"),
            _NO_ANE,
        ),
    },
    "jetson": {
        "default": "agx-xavier",
        "aliases": {"xavier": "agx-xavier", "orin": "agx-orin"},
        "absent": dict.fromkeys(
            ("orin-nano", "orin-nx", "xavier-nx"),
            "too few networks are published for this board: there are models of nano, agx-xavier, agx-orin",
        ),
    },
    "android": {"default": "pixel-3", "aliases": {}, "absent": {}},
    "traffic-camera": {
        "default": "raspberry-pi-4",
        "aliases": {
            "cortex-a53": "raspberry-pi-3",
            "cortex-a55": "rockchip-rk3566",
            "cortex-a72": "raspberry-pi-4",
            "cortex-a73": "odroid-n2",
            "cortex-a76": "firefly-rk3588s",
        },
        "absent": {},
    },
}  # fmt: skip
"""Of every target: the variant meant when none is named, other devices with the same chip, and gaps."""


_CORES: Final = {"0": "all cores", "1": "little cores", "2": "big cores"}
"""benchncnn's `powersave`: which cores the threads may use."""


def table(path: Path) -> list[dict[str, str]]:
    """The rows of the published table."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def rows_of(suite: Suite, published: Sequence[dict[str, str]]) -> Iterator[Row]:
    """The suite's rows whose network can be rebuilt; those marked suspect by the collection are left out."""
    for row in published:
        variant = suite.pick(row)
        precision = next((name for p, name in suite.precisions if re.fullmatch(p, row["precision"])), None)
        if variant is None or precision is None or "SUSPECT" in row["metric"]:
            continue
        ncnn = suite.runtime == "ncnn"
        key = NCNN.get(row["model"]) if ncnn else canonical(row["model"], row["input"])
        if key is None:
            continue
        little = "powersave=1" in row["metric"]
        yield Row(
            key=key,
            model=row["model"],
            variant=f"{variant}-little" if little else variant,
            device=row["device"],
            chip=row["chip"],
            engine=_engine(row),
            accelerator=row["accelerator"],
            precision=precision,
            threads=int(row["threads"][0]) if row["threads"][:1].isdigit() else None,
            ms=float(row["latency_ms"]),
            statistic=_statistic(row["metric"]),
            url=row["source_repo_or_url"],
            path=row["source_path"],
            date=row["date"],
        )


def _engine(row: dict[str, str]) -> str:
    """The runtime as the source names it; TensorRT's many builds by who measured them."""
    if "powersave" in row["metric"]:
        cores = re.search(r"powersave=(\d)", row["metric"])
        assert cores is not None
        return f"ncnn benchncnn ({_CORES[cores[1]]})"
    if "TensorRT" in row["runtime"]:
        measured_by = "MLPerf" if "inference_results" in row["source_repo_or_url"] else None
        return f"TensorRT ({measured_by or row['source_repo_or_url'].split('/')[-1]})"
    return row["runtime"]


def _statistic(metric: str) -> str:
    """The statistic without the figures of the single row."""
    if metric.startswith("p50 (MLPerf"):
        return "p50, MLPerf SingleStream"
    return "average of the loops" if metric.startswith("avg of") else metric
