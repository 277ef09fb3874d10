"""Cutting bit by bit in training: what is left is carried over exactly, in the original's numbering."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.networks import TOPOLOGIES, randomised
from tests.oracle import deviation, results
from toolchain import registry
from toolchain.contracts import Criterion, Evidence, Schedule, Silent
from toolchain.errors import Interrupted
from toolchain.program.blocks import blocks, drop
from toolchain.program.capture import capture, fingerprint
from toolchain.program.channels import analyse
from toolchain.program.narrowing import narrowed, places, same_groups
from toolchain.program.resize import fronted, resized, with_state
from toolchain.program.rewrite import apply, mask
from toolchain.train.data import open_data
from toolchain.train.gradual import Cut, Removal
from toolchain.train.loop import fine_tune
from toolchain.train.metric import evaluate, program_runner, resolve
from toolchain.train.student import Student
from toolchain.values import Preprocessing, Training

TOP1 = resolve("top1")
SETTINGS = Training(epochs=4, lr=0.05, batch_size=32, augment=False)
GRADUAL = [n for n in registry.names("toolchain.prune.schedules") if n != "one-shot"]


def schedule(name):
    return registry.find("toolchain.prune.schedules", "SCHEDULE", name)


def criterion(name):
    return registry.find("toolchain.prune.criteria", "CRITERION", name)


def captured(name):
    made = randomised(TOPOLOGIES[name]()).float()
    torch.manual_seed(1)
    return capture(made, (torch.randn(2, *made.shape),), name=name)


@pytest.fixture(scope="module")
def residual():
    return captured("residual")


@pytest.fixture
def data(tmp_path, residual):
    random = np.random.default_rng(0)
    y = np.arange(300) % 4
    x = random.integers(0, 120, (300, 3, 8, 8))
    x[np.arange(300), y % 3] += 100
    np.savez(tmp_path / "d.npz", x=x.astype(np.uint8), y=y)
    return open_data(str(tmp_path / "d.npz"), preprocessing=Preprocessing(), program_inputs=residual.inputs)


def half(program, *, without=0, name="agp", scores="magnitude", data=None, **more):
    """Half of every group, and the last `without` blocks."""
    channels = analyse(program)
    keep = {g.name: tuple(range(max(g.minimum, g.size // 2))) for g in channels.groups if g.size > 1}
    dropped = tuple(b.name for b in blocks(program))
    return Removal(
        original=program,
        channels=channels,
        final=Cut(keep=keep, dropped=dropped[len(dropped) - without :]),
        schedule=schedule(name),
        criterion=criterion(scores),
        evidence=Evidence(batches=() if data is None else (data.calibration(24),)),
        **more,
    )


def tune(removal, data, folder, *, training=SETTINGS, progress=None, **more):
    program = drop(apply(removal.original, removal.channels, removal.final.keep), removal.final.dropped)
    return fine_tune(
        program, teacher=removal.original, data=data, metric=TOP1, training=training, folder=folder,
        progress=progress or Silent(), removal=removal, **more,
    )  # fmt: skip


def widths(keep):
    return {name: len(units) for name, units in keep.items()}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_two_cuts_in_a_row_are_one(name):
    """Tensors narrowed from a first cut to a deeper one are those of the deeper cut made at once."""
    program = captured(name)
    channels = analyse(program)
    random = np.random.default_rng(3)
    first, second = {}, {}
    for group in channels.groups:
        order = random.permutation(group.size).tolist()
        some = max(group.minimum, (2 * group.size) // 3)
        few = max(group.minimum, group.size // 3)
        first[group.name], second[group.name] = tuple(sorted(order[:some])), tuple(sorted(order[:few]))
    before = dict(apply(program, channels, first).module.named_parameters())
    wanted = dict(apply(program, channels, second).module.named_parameters())
    found = narrowed(before, places(program, first), places(program, second))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_groups_are_recognised_after_a_cut(name):
    program = captured(name)
    channels = analyse(program)
    keep = {g.name: tuple(range(g.size - max(g.minimum, g.size // 2), g.size)) for g in channels.groups}
    cut = apply(program, channels, keep)
    now = analyse(cut)
    found = same_groups(channels, keep, places(program, keep), now)
    # Of a group with one unit left nothing is to be chosen, and it may be one with another group.
    for group in (g for g in channels.groups if len(keep[g.name]) > 1):
        one_less = apply(program, channels, {**keep, group.name: keep[group.name][1:]})
        again = apply(cut, now, {found[group.name]: tuple(range(1, len(keep[group.name])))})
        wanted = dict(one_less.module.named_parameters())
        assert all(torch.equal(p, wanted[n]) for n, p in again.module.named_parameters())


def test_a_group_that_was_called_after_a_dropped_block_is_recognised(residual):
    channels = analyse(residual)
    now = analyse(drop(residual, ["blocks.1"]))
    found = same_groups(channels, {}, places(residual, {}), now)
    assert found["blocks.1.conv2"] == "blocks.1.short"
    assert "blocks.1.conv1" not in found


@pytest.mark.parametrize("name", GRADUAL)
@pytest.mark.parametrize("without", [0, 2])
def test_without_learning_the_result_is_the_masked_original(name, without, residual, data, tmp_path):
    """The oracle: nothing learnt, batch-norm statistics apart, which are the student's own."""
    removal = half(residual, name=name, without=without)
    tuned = tune(removal, data, tmp_path, training=replace(SETTINGS, lr=0.0, epochs=2))
    keep = dict(tuned.cut.keep)
    assert widths(keep) == widths(removal.final.keep)
    assert tuned.cut.dropped == removal.final.dropped
    bare = drop(mask(residual, removal.channels, keep), tuned.cut.dropped)
    statistics = dict(tuned.program.module.named_buffers())
    at = places(residual, keep)
    for key, whole in bare.module.named_buffers():
        if key in statistics and whole.is_floating_point():
            whole[next(iter(at[key].values()), slice(None))] = statistics[key]
    inputs = (torch.randn(6, 3, 8, 8),)
    found, wanted = (results(p, inputs) for p in (tuned.program, bare))
    assert deviation(found, wanted) < 1e-5


def test_weights_and_momenta_of_what_stays_are_carried_over(residual):
    removal = half(residual, without=1)
    student = Student(residual, SETTINGS, torch.device("cpu"), removal)
    torch.manual_seed(0)
    student.module(torch.randn(8, 3, 8, 8)).sum().backward()
    student.optimizer.step()
    student.optimizer.zero_grad()
    before = {n: (p.detach().clone(), student.optimizer.state[p]["momentum_buffer"].clone())
              for n, p in student.module.named_parameters()}  # fmt: skip
    student.cut_what_is_due(1, 1)
    assert student.final
    at = places(residual, student.cut.keep)
    smaller = 0
    for name, parameter in student.module.named_parameters():
        for tensor, old in zip(
            (parameter, student.optimizer.state[parameter]["momentum_buffer"]), before[name], strict=True
        ):
            for dim, positions in at[name].items():
                old = old.index_select(dim, positions)
            assert torch.equal(tensor, old), name
            smaller += bool(at[name])
    assert smaller > 10
    assert student.left < 0.5


def test_the_criterion_sees_the_network_as_it_is(residual, data, tmp_path):
    seen = []

    def score(program, channels, evidence):
        seen.append({g.name: g.size for g in channels.groups})
        return criterion("magnitude").score(program, channels, evidence)

    spy = Criterion(name="spy", summary="", needs_data=False, score=score)
    removal = replace(half(residual, name="iterative"), criterion=spy)
    tuned = tune(removal, data, tmp_path)
    sizes = [sum(s.values()) for s in seen]
    assert len(sizes) > 3
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sum(g.size for g in removal.channels.groups)
    assert [e.left for e in tuned.history] == sorted((e.left for e in tuned.history), reverse=True)


def test_a_network_for_smaller_images_is_cut_behind_their_reduction(residual, data, tmp_path):
    small = resized(residual, (4, 4))
    removal = replace(half(small, without=1, name="iterative"), original=fronted(small, (8, 8)))
    tuned = tune(removal, data, tmp_path, training=replace(SETTINGS, epochs=2))
    alone = drop(apply(small, removal.channels, dict(tuned.cut.keep)), tuned.cut.dropped)
    alone = with_state(alone, tuned.program.module)
    images = torch.randn(6, 3, 8, 8)
    reduced = torch.ops.aten._upsample_bilinear2d_aa.default(images, [4, 4], False, None, None)
    assert widths(tuned.cut.keep) == widths(removal.final.keep)
    assert deviation(results(alone, (reduced,)), results(tuned.program, (images,))) < 1e-6


def test_units_that_a_plan_binds_are_the_ones_that_stay(residual, data, tmp_path):
    free = tune(half(residual), data, tmp_path / "free", training=replace(SETTINGS, epochs=1))
    bound = tune(half(residual, pinned=True), data, tmp_path / "bound", training=replace(SETTINGS, epochs=1))
    wanted = half(residual).final.keep
    assert {n: bound.cut.keep[n] for n in wanted} == wanted
    assert dict(free.cut.keep) != wanted, "the criterion chose the plan's units by chance"


def test_only_epochs_at_the_final_widths_can_be_the_best(residual, data, tmp_path):
    """With a metric that falls, the best is the first epoch that ends at the final widths."""
    values = iter(range(100, 0, -1))
    falling = replace(TOP1, mean=lambda outputs, target: float(next(values)))
    late = Schedule(name="late", summary="", removed=lambda t: 1.0 if t >= 0.5 else 0.0)
    removal = replace(half(residual), schedule=late)
    tuned = fine_tune(
        apply(residual, removal.channels, removal.final.keep), teacher=None, data=data, metric=falling,
        training=SETTINGS, folder=tmp_path, progress=Silent(), removal=removal,
    )  # fmt: skip
    assert [e.left < 1 for e in tuned.history] == [False, False, True, True]
    assert tuned.best_epoch == 3


class Stop(Silent):
    """Presses Ctrl-C after `steps` steps."""

    def __init__(self, steps):
        self.steps = steps

    def step(self, done, total, note=""):
        assert "of the parameters left" in note
        if done >= self.steps:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", GRADUAL)
def test_interrupted_and_resumed_is_bit_identical(name, residual, data, tmp_path):
    def removal():
        return half(residual, name=name, without=1, scores="taylor", data=data)

    whole = tune(removal(), data, tmp_path / "a")
    for steps in (13, 26):
        with pytest.raises(Interrupted):
            tune(removal(), data, tmp_path / "b", progress=Stop(steps), resume=True)
    resumed = tune(removal(), data, tmp_path / "b", resume=True)
    assert resumed.cut == whole.cut
    assert fingerprint(resumed.program) == fingerprint(whole.program)
    assert [replace(e, seconds=0) for e in resumed.history] == [replace(e, seconds=0) for e in whole.history]


def test_finished_before_the_schedule_goes_straight_to_the_final_widths(residual, data, tmp_path):
    removal = half(residual, name="one-cycle", without=1)
    with pytest.raises(Interrupted):
        tune(removal, data, tmp_path, progress=Stop(15))
    ended = tune(removal, data, tmp_path, finish=True)
    assert ended.hastened
    assert ended.stopped_early
    assert len(ended.history) == 1
    assert widths(ended.cut.keep) == widths(removal.final.keep)
    assert ended.cut.dropped == removal.final.dropped
    assert 0 <= evaluate(program_runner(ended.program), data, TOP1).value <= 100


def test_finished_after_the_schedule_takes_the_best_epoch(residual, data, tmp_path):
    removal = half(residual)
    with pytest.raises(Interrupted):
        tune(removal, data, tmp_path, progress=Stop(36))
    ended = tune(removal, data, tmp_path, finish=True)
    assert (ended.hastened, ended.stopped_early, len(ended.history)) == (False, True, 3)
    assert ended.best_epoch in (2, 3)
    assert evaluate(program_runner(ended.program), data, TOP1).value == ended.best_value
