"""What people hand in by mistake, through the real command line.

Each: one clear line and a hint, the documented exit code, no traceback, and not one file more than before.
"""

import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from toolchain import cli


class Foreign(nn.Module):
    """A class that no allow-list knows."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.layer(x)


class Exploit:
    """What a hostile pickle does: leaves a trace when it is executed."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


def small_network(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).eval()


def save_exported(model, path, channels=3):
    sample = torch.zeros(2, channels, 8, 8)
    torch.export.save(
        torch.export.export(model, (sample,), dynamic_shapes=({0: torch.export.Dim.AUTO},)), path
    )


def picture(folder, name, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Files that are made once and only read."""
    root = tmp_path_factory.mktemp("inputs")
    save_exported(small_network(), root / "good.pt2")
    broken = small_network()
    broken[0].weight.data[0, 0, 0, 0] = float("nan")
    save_exported(broken, root / "nan.pt2")
    whole = (root / "good.pt2").read_bytes()
    (root / "truncated.pt2").write_bytes(whole[: len(whole) // 2])
    (root / "empty.pt2").write_bytes(b"")
    (root / "page.pt2").write_text("<!doctype html><html>404 not found</html>")
    (root / "model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch" + b"\0" * 64)
    Image.new("RGB", (8, 8)).save(root / "photo.jpg")
    with zipfile.ZipFile(root / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    (root / "folder.pt2").mkdir()
    torch.save(Foreign(), root / "foreign.pt")
    (root / "hostile.pt").write_bytes(pickle.dumps(Exploit()))
    torch.save(small_network(), root / "module.pt")
    torch.save(small_network().state_dict(), root / "weights.pth")
    torch.save({"unrelated.weight": torch.zeros(3)}, root / "other.pth")
    torch.save([1, 2, 3], root / "list.pt")
    (root / "mynet.py").write_text(
        "import torch\nfrom torch import nn\nVALUE = 3\n"
        "def other():\n    return nn.Sequential(nn.Linear(4, 2))\n"
        "def broken():\n    raise RuntimeError('no such file: config.yaml')\n"
        "def not_loaders():\n    return 5\n"
    )
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            for number in range(4):
                picture(root / "images" / split / label, f"{number}.png", number)
    make_data(root)
    return root


def make_data(root):
    """The unusable data sets."""
    (root / "nothing").mkdir()
    for split, label in (("train", "cat"), ("train", "dog"), ("val", "cat"), ("val", "cow")):
        picture(root / "differ" / split / label, "0.png")
    picture(root / "only_train" / "train" / "cat", "0.png")
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (root / "labels" / split / label).mkdir(parents=True)
            (root / "corrupt" / split / label).mkdir(parents=True)
            (root / "corrupt" / split / label / "0.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    x, y = np.zeros((20, 3, 8, 8), np.float32), np.arange(20) % 2
    np.savez(root / "good.npz", x=x, y=y)
    np.savez(root / "no_y.npz", x=x)
    np.savez(root / "lengths.npz", x=x, y=y[:-1])
    np.savez(root / "nan.npz", x=np.full_like(x, np.nan), y=y)
    np.savez(root / "object.npz", x=np.array([{}] * 20, dtype=object), y=y)
    np.savez(root / "gray.npz", x=x[:, :1], y=y)
    np.savez(root / "labels_out.npz", x=x, y=y + 100)
    (root / "text.npz").write_text("x,y\n1,2\n")
    (root / "plan.json").write_text("{]")
    (root / "note.txt").write_text("a file")


@pytest.fixture
def place(tmp_path, monkeypatch, store):
    """An empty working folder; S in a command stands for the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(store))
    return tmp_path


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in p.parts)


MODELS = [
    ("S/missing.pt2", 2, "missing.pt2"),
    ("S/folder.pt2", 2, "folder.pt2"),
    ("S/empty.pt2", 2, "empty.pt2"),
    ("S/truncated.pt2", 2, "truncated.pt2"),
    ("S/page.pt2", 2, "HTML"),
    ("S/model.onnx", 2, "model.onnx"),
    ("S/photo.jpg", 2, "JPEG"),
    ("S/other.zip", 2, "other.zip"),
    ("S/foreign.pt --input-shape 1,3,8,8", 2, "Foreign"),
    ("S/hostile.pt", 2, "mkdir"),
    ("S/module.pt", 2, "does not say what its inputs look like"),
    ("S/module.pt --input-shape 1,5,8,8", 2, "1, 5, 8, 8"),
    ("S/weights.pth --input-shape 1,3,8,8", 2, "state dict"),
    ("S/weights.pth --input-shape 1,3,8,8 --arch nomodule:build", 2, "nomodule"),
    ("S/weights.pth --input-shape 1,3,8,8 --arch mynet:nothing", 2, "nothing"),
    ("S/weights.pth --input-shape 1,3,8,8 --arch mynet:VALUE", 2, "VALUE"),
    ("S/weights.pth --input-shape 1,3,8,8 --arch mynet:broken", 2, "config.yaml"),
    ("S/weights.pth --input-shape 1,3,8,8 --arch mynet:other", 2, "0.weight"),
    ("S/weights.pth --input-shape 1,3,8,8 --arch mynet", 2, "mynet"),
    ("S/list.pt", 2, "list.pt"),
    ("S/nan.pt2", 2, "0.weight"),
    ("S/good.pt2 --input-shape 1,4,8,8", 2, "input-shape"),
]
DATA = [
    ("S/absent", 2, "absent"),
    ("S/nothing", 2, "nothing"),
    ("S/only_train", 2, "val"),
    ("S/differ", 2, "cow"),
    ("S/labels", 2, "labels"),
    ("S/corrupt", 2, "corrupt"),
    ("S/note.txt", 2, "note.txt"),
    ("S/text.npz", 2, "text.npz is no readable .npz file (not a numpy file)"),
    ("S/no_y.npz", 2, "y"),
    ("S/lengths.npz", 2, "19"),
    ("S/nan.npz", 2, "nan.npz"),
    ("S/object.npz", 2, "object"),
    ("S/gray.npz", 2, "gray.npz"),
    ("S/labels_out.npz", 2, "label"),
    ("nomodule:loaders", 2, "nomodule"),
    ("mynet:not_loaders", 2, "not_loaders"),
]
FLAGS = [
    ("compress S/good.pt2", 2, "no budget given"),
    ("compress S/good.pt2 --budget-ms -1", 2, "-1"),
    ("compress S/good.pt2 --budget-ms 0", 2, "above zero"),
    ("compress S/good.pt2 --budget-ms nan", 2, "nan"),
    ("compress S/good.pt2 --budget-ms 1 --target hots", 2, "hots"),
    ("compress S/good.pt2 --budget-ms 1 --criterion tailor", 2, "tailor"),
    ("compress S/good.pt2 --budget-ms 1 --formats onxx", 2, "onxx"),
    ("compress S/good.pt2 --budget-ms 1 --runtime tensorrt", 2, "tensorrt"),
    ("compress S/good.pt2 --budget-ms 1 --data S/good.npz --metric nomodule:f", 2, "nomodule"),
    ("compress S/good.pt2 --budget-ms 1 --metric top2", 2, "top2"),
    ("compress S/good.pt2 --budget-ms 1 --out S/note.txt", 2, "note.txt"),
    ("compress S/good.pt2 --budget-ms 1 --out S/images", 2, "images"),
    ("compress S/good.pt2 --budget-ms 1 --out /proc/edgefit/out", 2, "/proc"),
    ("compress S/good.pt2 --budget-ms 1 --out S/note.txt/deeper", 2, "note.txt"),
    ("compress S/good.pt2 --budget-ms 1 --bugdet-mb 2", 2, "--bugdet-mb"),
    ("plan S/good.pt2 --apply S/plan.json --precision fp32 --formats onnx", 2, "plan.json"),
    ("plan S/good.pt2 --apply S/absent.json --precision fp32 --formats onnx", 2, "absent.json"),
    ("bench S/good.pt2 --precision int8", 2, "int8"),
    ("inspect S/empty.pt2", 2, "empty.pt2"),
    ("bnech S/good.pt2", 2, "bnech"),
]
CASES = [
    *((f"compress {model} --budget-ms 1", code, said) for model, code, said in MODELS),
    *((f"compress S/good.pt2 --budget-ms 1 --data {data}", code, said) for data, code, said in DATA),
    *FLAGS,
]


@pytest.mark.parametrize(("line", "code", "said"), CASES, ids=[case[0] for case in CASES])
def test_one_clear_line(line, code, said, place, store, capfd):
    before = everything(place), everything(store)
    words = [word.replace("S/", f"{store}/") if word.startswith("S/") else word for word in line.split()]
    found = cli.main([*words, "--quiet"])
    out, err = capfd.readouterr()
    assert (found, out) == (code, ""), err
    lines = err.splitlines()
    assert [text.split(":")[0] for text in lines] in (["error"], ["error", "hint"]), err
    assert said in lines[0], err
    assert "Traceback" not in err
    assert all(len(text) < 400 for text in lines), err
    left = [name for name in everything(place) if not Path(name).parts[0].endswith(".work")]
    assert (left, everything(store)) == before


def run(words, folder, **options):
    command = [sys.executable, "-m", "toolchain.cli", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_no_space_left(place, store):
    """Every file of the process is limited to 1 kB: what a full disk is to a program."""
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    words = [
        "compress",
        store / "good.pt2",
        "--budget-macs",
        "10k",
        "--formats",
        "onnx",
        "--precision",
        "fp32",
    ]
    out, err = (process := run(words, place, preexec_fn=limit)).communicate(timeout=240)
    assert (process.returncode, out) == (2, ""), err
    assert [text for text in err.splitlines() if text.startswith("error: cannot write")], err
    assert "Traceback" not in err
    assert not (place / "good-compressed").exists()
    assert not list(place.rglob("*.partial*"))


def test_interrupted(place, store):
    words = ["compress", store / "good.pt2", "--budget-ms", "0.001", "--data", store / "good.npz"]
    process = run(words, place)
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), first + err
    assert [text for text in err.splitlines() if text.startswith("error: interrupted")], err
    assert "Traceback" not in err
    assert not (place / "good-compressed").exists()
    assert not list(place.rglob("*.partial*"))


def test_hostile_pickle_is_not_executed(place, store, capfd):
    cli.main(["compress", str(store / "hostile.pt"), "--budget-ms", "1", "--quiet"])
    assert not (place / "executed").exists()
