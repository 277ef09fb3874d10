"""Image folders, arrays and loaders: what is fed, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolchain.errors import InputError
from toolchain.train import images
from toolchain.train.batches import augmented, spread, without_lone
from toolchain.train.confusion import IGNORED
from toolchain.train.data import open_data
from toolchain.train.reduced import Reduced
from toolchain.values import Preprocessing, TensorSpec

SPEC = TensorSpec(name="x", shape=(None, 3, 8, 8))
PLAIN = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0), source="flags")


def opened(path, preprocessing=PLAIN, spec=SPEC, **more):
    return open_data(str(path), preprocessing=preprocessing, program_inputs=(spec,), **more)


def folder(root, *, classes=("cat", "dog"), count=6, size=(8, 8)):
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 255, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


def test_image_folder_is_normalised_and_labelled(tmp_path):
    data = opened(folder(tmp_path))
    assert data.classes == ("cat", "dog")
    assert (data.train_size, data.validation_size) == (12, 12)
    (x,), y = next(data.validation(12))
    wanted = np.stack([np.asarray(Image.open(tmp_path / "val" / "dog" / f"{i}.png")) for i in range(6)])
    wanted = (wanted / 255 - np.array(PLAIN.mean)) / np.array(PLAIN.std)
    found = x[y == 1].permute(0, 2, 3, 1).numpy()
    assert all(any(np.allclose(w, f, atol=1e-5) for f in found) for w in wanted)
    assert set(y[:4].tolist()) == {0, 1}


def test_on_the_fly_gives_the_same_as_in_memory(tmp_path):
    folder(tmp_path, size=(11, 9))
    kept = images.open_images(tmp_path, preprocessing=PLAIN, spec=SPEC)
    read = images.open_images(tmp_path, preprocessing=PLAIN, spec=SPEC, in_memory_bytes=0)
    for ((a,), y), ((b,), z) in zip(
        kept.train(5, seed=3, augment=True), read.train(5, seed=3, augment=True), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(y, z)


def test_no_last_batch_of_one_sample_which_has_no_variance(tmp_path):
    data = opened(folder(tmp_path))
    assert [len(y) for _, y in data.train(11, seed=0, augment=False)] == [11]
    assert [len(y) for _, y in data.train(10, seed=0, augment=False)] == [10, 2]
    assert [len(y) for _, y in data.train(1, seed=0, augment=False)] == [1] * 12
    assert [len(y) for _, y in data.validation(11)] == [11, 1], "all of them are judged"


def test_void_of_maps_is_not_judged(tmp_path):
    x, maps = np.zeros((4, 3, 8, 8), np.float32), np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    np.savez(tmp_path / "maps.npz", x=x, y=maps, x_val=x, y_val=maps.astype(np.int16) - 100)
    plain = Preprocessing()
    with pytest.raises(InputError, match="y_val holds the label -99"):
        opened(tmp_path / "maps.npz", plain)
    np.savez(
        tmp_path / "maps.npz", x=x, y=maps, x_val=x, y_val=np.where(maps == 7, -100, maps.astype(np.int16))
    )
    data = opened(tmp_path / "maps.npz", plain)
    (_, target), (_, judged) = next(data.train(4, seed=0, augment=False)), next(data.validation(4))
    assert (int(target.max()), int((target == IGNORED).sum())) == (254, 1)
    assert int((judged == IGNORED).sum()) == 2
    np.savez(tmp_path / "numbers.npz", x=x, y=np.array([0, 1, 255, -100]))
    with pytest.raises(InputError, match="y holds the label -100"):
        opened(tmp_path / "numbers.npz", plain)


@pytest.mark.parametrize("memory", [0, 10**9])
def test_corrupt_images_are_named_and_left_out(tmp_path, memory):
    folder(tmp_path)
    bad = tmp_path / "train" / "cat" / "0.png"
    bad.write_bytes(bad.read_bytes()[:60])
    (tmp_path / "val" / "dog" / "1.png").write_text("no image")
    data = images.open_images(tmp_path, preprocessing=PLAIN, spec=SPEC, in_memory_bytes=memory)
    assert data.skipped == (str(Path("train/cat/0.png")), str(Path("val/dog/1.png")))
    assert (data.train_size, data.validation_size) == (11, 11)
    assert sum(len(y) for _, y in data.train(4, seed=0, augment=False)) == 11


def test_epochs_differ_by_seed_and_repeat_by_seed(tmp_path):
    data = opened(folder(tmp_path))
    first, again, other = (next(data.train(12, seed=s, augment=True))[0][0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_fingerprint_follows_the_files(tmp_path):
    before = opened(folder(tmp_path)).fingerprint()
    assert opened(tmp_path).fingerprint() == before
    assert opened(tmp_path, preprocessing=Preprocessing()).fingerprint() != before
    os.utime(tmp_path / "val" / "cat" / "3.png", (1, 1))
    assert opened(tmp_path).fingerprint() != before


def test_folder_problems(tmp_path):
    with pytest.raises(InputError, match="not found"):
        opened(tmp_path / "none")
    with pytest.raises(InputError, match="is empty"):
        opened(tmp_path)
    folder(tmp_path)
    (tmp_path / "val" / "bird").mkdir()
    with pytest.raises(InputError, match="'bird' is in val/ only"):
        opened(tmp_path)
    (tmp_path / "train" / "bird").mkdir()
    with pytest.raises(InputError, match="a class without images"):
        opened(tmp_path)
    with pytest.raises(InputError, match="contradicts"):
        opened(tmp_path, preprocessing=Preprocessing(resize=(9, 9)))
    with pytest.raises(InputError, match="do not fit input"):
        opened(tmp_path, spec=TensorSpec(name="x", shape=(None, 5, 8, 8)))


def arrays(path, **changes):
    found = {"x": np.zeros((40, 3, 8, 8), np.uint8), "y": np.arange(40) % 4} | changes
    np.savez(path, **{k: v for k, v in found.items() if v is not None})
    return path


def test_arrays_split_stratified_and_fixed(tmp_path):
    data = opened(arrays(tmp_path / "d.npz"))
    assert (data.train_size, data.validation_size) == (36, 4)
    assert sorted(next(data.validation(9))[1].tolist()) == [0, 1, 2, 3]
    assert "stratified" in data.name
    assert sorted(data.calibration(8)[1].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_float_arrays_are_fed_as_they_are(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)
    data = opened(
        arrays(tmp_path / "d.npz", x=x, x_val=x, y_val=np.zeros(40, int)), preprocessing=Preprocessing()
    )
    assert data.preprocessing is None
    (found,), _ = next(data.validation(40))
    assert {f.tobytes() for f in found.numpy()} == {sample.tobytes() for sample in x}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y": None}, "no array 'y'"),
        ({"y": np.arange(39)}, "differ in length"),
        ({"x": np.full((40, 3, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"x": np.zeros((40, 1, 8, 8), np.uint8)}, r"\[1, 8, 8\]"),
        ({"y": np.array([{}] * 40)}, "object array"),
        ({"y": np.arange(40) - 1}, "label -1"),
        ({"x_val": np.zeros((4, 3, 8, 8), np.uint8)}, "come together"),
        ({"x": np.zeros((0, 3, 8, 8), np.uint8), "y": np.zeros(0, int)}, "is empty"),
    ],
)
def test_array_problems(tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        opened(arrays(tmp_path / "d.npz", **changes))


def test_more_classes_than_the_network_has(tmp_path):
    with pytest.raises(InputError, match="4 classes, but the network has 3"):
        opened(arrays(tmp_path / "d.npz"), classes=3)


def loaders():
    x, y = torch.randn(24, 3, 8, 8), torch.arange(24) % 3
    dataset = torch.utils.data.TensorDataset(x, y)
    return (
        torch.utils.data.DataLoader(dataset, batch_size=5, shuffle=True),
        torch.utils.data.DataLoader(dataset, batch_size=7),
    )


def once():
    return iter([]), iter([])


def test_loaders_are_seeded_and_leave_the_random_state(tmp_path):
    data = opened(f"{__name__}:loaders")
    assert (data.train_size, data.validation_size) == (24, 24)
    state = torch.get_rng_state()
    first, second = ([y.tolist() for _, y in data.train(5, seed=4, augment=True)] for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert sorted(data.calibration(6)[1].tolist()) == [0, 0, 1, 1, 2, 2]
    for spec, says in (("once", "only once"), ("nothing", "has no"), ("PLAIN", "non-callable")):
        with pytest.raises(InputError, match=says):
            opened(f"{__name__}:{spec}")


def test_batches_of_one_are_left_out_after_larger_ones_only():
    def sizes(*counts):
        return [len(y) for _, y in without_lone(((), torch.zeros(n)) for n in counts)]

    assert sizes(5, 5, 1) == [5, 5]
    assert sizes(1, 1, 1) == [1, 1, 1]
    assert sizes(1, 4, 1, 2) == [1, 4, 2]
    assert sizes() == []


def test_augmentation_moves_and_mirrors_whole_images():
    pixels = torch.arange(1, 65, dtype=torch.uint8).view(1, 8, 8, 1).repeat(200, 1, 1, 3)
    moved = augmented(pixels, torch.Generator().manual_seed(0), flips=True)
    steps = moved[:, 4, 4, 0].int() - moved[:, 4, 3, 0].int()
    assert set(steps.tolist()) == {1, -1}
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 18
    assert set(moved[:, 4, 4, 0].tolist()) <= set(range(1, 65))


def test_spread_gives_every_class_its_share_in_any_beginning():
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    order = spread(labels)
    assert sorted(order.tolist()) == list(range(90))
    assert np.bincount(labels[order[:30]]).tolist() == [10, 10, 10]
    assert np.array_equal(order, spread(labels))


def test_reduced_data_are_the_same_samples_made_smaller(tmp_path):
    whole = opened(folder(tmp_path, size=(8, 8)))
    small = Reduced(data=whole, size=(4, 6))
    for name in ("train", "calibration", "validation"):
        given = {"train": (5,), "calibration": (7,), "validation": (5,)}[name]
        more = {"seed": 3, "augment": True} if name == "train" else {}
        pairs = [getattr(data, name)(*given, **more) for data in (whole, small)]
        if name == "calibration":
            pairs = [[batch] for batch in pairs]
        for ((a,), y), ((b,), z) in zip(*pairs, strict=True):
            wanted = torch.nn.functional.interpolate(a, (4, 6), mode="bilinear", antialias=True)
            torch.testing.assert_close(b, wanted)
            assert torch.equal(y, z)
    assert small.fingerprint() != Reduced(data=whole, size=(4, 4)).fingerprint() != whole.fingerprint()
    assert small.preprocessing.resize == (4, 6)
    assert small.preprocessing.source == "flags; reduced from 8 x 8 to 4 x 6, bilinear, antialiased"
    assert (small.train_size, small.validation_size, small.classes) == (12, 12, ("cat", "dog"))
