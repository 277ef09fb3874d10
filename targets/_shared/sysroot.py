"""What an emulated Arm machine looks like from inside: its libraries, one core, its features and caches.

qemu-user shows a program the files of this folder in place of the machine's own. Without them onnxruntime and
LiteRT would read the caches and the processor of this machine, choose kernels by them, or fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from toolchain.artifacts import place

LIBRARIES: Final = Path("/usr/aarch64-linux-gnu/lib")
"""Where Debian's cross packages (libc6-arm64-cross, libstdc++6-arm64-cross) put them."""


@dataclass(frozen=True, kw_only=True)
class Core:
    """An Arm core: its part number, features as Linux names them, data, code and second-level caches (kB)."""

    part: str
    features: str
    data_kb: int
    code_kb: int
    second_kb: int


_V8: Final = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V82: Final = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)
CORES: Final[Mapping[str, Core]] = {
    "cortex-a53": Core(part="0xd03", features=_V8, data_kb=32, code_kb=32, second_kb=512),
    "cortex-a72": Core(part="0xd08", features=_V8, data_kb=32, code_kb=48, second_kb=1024),
    "cortex-a76": Core(part="0xd0b", features=_V82, data_kb=64, code_kb=64, second_kb=512),
}
"""Part numbers and features: Arm's technical reference manuals; sizes: common configurations of boards."""


def sysroot(name: str, folder: Path) -> Path:
    """The files of core `name`, written into `folder` unless they are there."""
    root = folder / f"sysroot-{name}"
    if not root.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        place(root, lambda partial: _fill(CORES[name], partial))
    return root


def _fill(core: Core, root: Path) -> None:
    cpu = "sys/devices/system/cpu"
    cache = f"{cpu}/cpu0/cache"
    files = {
        "proc/cpuinfo": _cpuinfo(core),
        f"{cpu}/possible": "0\n",
        f"{cpu}/present": "0\n",
        f"{cpu}/online": "0\n",
    }
    caches = ((1, "Data", core.data_kb), (1, "Instruction", core.code_kb), (2, "Unified", core.second_kb))
    for index, (level, kind, size) in enumerate(caches):
        files |= {
            f"{cache}/index{index}/level": f"{level}\n",
            f"{cache}/index{index}/type": f"{kind}\n",
            f"{cache}/index{index}/size": f"{size}K\n",
            f"{cache}/index{index}/shared_cpu_list": "0\n",
        }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    (root / "lib").symlink_to(LIBRARIES)


def _cpuinfo(core: Core) -> str:
    return (
        f"processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: {core.features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {core.part}\nCPU revision\t: 4\n\n"
    )
