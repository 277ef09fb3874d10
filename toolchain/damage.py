"""What removing things costs, in nats: measured once per channel group and residual block.

A criterion ranks the units within a group well but compares groups badly. Each group is therefore silenced
down to one middle width, and the divergence of the outputs from the original's is measured while batch norm
uses the batch's own statistics (as it will after fine-tuning); the criterion's curve is scaled to pass
through that point. A block is silenced and measured the same way. One copy of the network serves all trials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from toolchain import registry
from toolchain.contracts import Criterion, Evidence
from toolchain.plain import from_plain, to_plain
from toolchain.program.capture import fingerprint
from toolchain.program.slices import positions
from toolchain.prune.plan import FLOOR, Axis, levels, width_axis
from toolchain.prune.variety import varied
from toolchain.resources import BLOCK, Shape
from toolchain.run import Run
from toolchain.train.distil import distillation_loss
from toolchain.train.metric import as_tuple
from toolchain.train.reestimate import adaptive
from toolchain.values import PLANNER, Block, Group, Program, Request

if TYPE_CHECKING:
    from toolchain.contracts import Batch, Data
    from toolchain.train.metric import Runner

SCORED: Final = 256
"""Training samples that a criterion sees."""
JUDGED: Final = 96
"""Training samples on which the divergence of a cut is measured."""
LEAST: Final = 1e-4
"""Damage in nats below which a cut cannot be told from none."""


@dataclass(frozen=True, kw_only=True)
class Damages:
    """Unit scores by group; `scale` turns them into nats, `blocks` is in nats (empty: unknown)."""

    criterion: str
    scores: Mapping[str, tuple[float, ...]]
    scale: Mapping[str, float]
    blocks: Mapping[str, float]


def criterion_named(request: Request) -> Criterion:
    """The criterion asked for; `auto` is taylor with data and magnitude without.

    Raises:
        InputError: no such criterion.
    """
    name = request.criterion
    if name == "auto":
        name = "magnitude" if request.data is None else "taylor"
    found: Criterion = registry.find("toolchain.prune.criteria", "CRITERION", name, kind="criterion")
    return varied(found) if request.variety else found


def measure_damages(run: Run, shape: Shape) -> Damages:
    """Scores by the request's criterion, scaled by measured divergences where there are data.

    A finished stage: no budget and no target changes them.
    """
    criterion, data = criterion_named(run.request), run.data

    def make(folder: Path) -> None:
        found = _measured(run, shape, criterion)
        (folder / "damages.json").write_text(json.dumps(to_plain(found)), encoding="utf-8")

    inputs = {
        "program": fingerprint(run.program),
        "data": None if data is None else [data.fingerprint(), to_plain(run.request.preprocessing)],
        "criterion": criterion.name,
        "seed": run.request.seed,
        "loose": run.program.loose,
    }
    folder, _ = run.stages.once("damages", inputs, make)
    return from_plain(Damages, json.loads((folder / "damages.json").read_text(encoding="utf-8")))


def _measured(run: Run, shape: Shape, criterion: Criterion) -> Damages:
    name = criterion.name
    batch = None if run.data is None else run.data.calibration(SCORED)
    with run.stage(f"Scores of the channels ({name})", "plan"):
        evidence = Evidence(batches=() if batch is None else (batch,), seed=run.request.seed)
        scores = criterion.score(run.program, run.channels, evidence)
    if run.data is None:
        return Damages(criterion=name, scores=scores, scale={}, blocks={})
    with run.stage("Damage of removing each group and block", "plan"):
        trial = _trial(run, shape, judged(run.data))
        total, scale, gone = len(run.channels.groups) + len(shape.blocks), {}, {}
        for group in run.channels.groups:
            scale[group.name] = trial.nats_per_score(group, scores[group.name])
            run.progress.step(len(scale), total, group.name)
        for block in shape.blocks:
            gone[block.name] = trial.without_block(block)
            run.progress.step(len(scale) + len(gone), total, block.name)
    return Damages(criterion=name, scores=scores, scale=scale, blocks=gone)


def damage_together(run: Run, program: Program) -> float:
    """Nats by which `program`, at the run's input size, diverges from the original; on the same samples.

    Batch norm uses the batch's own statistics, as for single cuts: the size shifts them, and training adapts
    them.
    """
    whole = run.origin or run
    assert whole.data is not None
    with run.stage("Damage of size and cuts together", "plan"):
        network, _ = adaptive(run.facing(program))
        found = divergence_of(lambda x: as_tuple(network(*x)), whole.program, judged(whole.data))
    return max(found, LEAST)


def axes_of(run: Run, damages: Damages, align: int) -> tuple[Axis, ...]:
    """The solver's axes: every group's width, and every block whose damage is known.

    Where no time is limited, a method that judges channel by channel is followed to the channel.
    """
    floor = FLOOR
    if run.request.learning.method != PLANNER and run.request.budget.ms is None:
        align, floor = 1, 0.0
    found = [
        width_axis(group, damages.scores[group.name], align, damages.scale.get(group.name, 1.0), floor)
        for group in run.channels.groups
    ]
    found += [Axis(name=BLOCK + n, levels=(1, 0), damage=(0.0, nats)) for n, nats in damages.blocks.items()]
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """A copy of the network in which units and blocks can be silenced for one forward pass."""

    network: GraphModule
    parameters: Mapping[str, Tensor]
    batch: Batch
    original: tuple[Tensor, ...]

    def nats_per_score(self, group: Group, scores: Sequence[float]) -> float:
        """The scale of the criterion's scores, from silencing about half of the group's units."""
        ladder = levels(group, 1)
        middle = min(ladder, key=lambda count: abs(count - group.size / 2))
        gone = sorted(range(group.size), key=lambda u: (scores[u], -u))[: group.size - middle]
        lost = sum(scores[u] for u in gone)
        if not gone or lost <= 0:
            return 1.0
        with self._silenced(group, gone):
            return self._divergence() / lost

    def without_block(self, block: Block) -> float:
        """Nats lost by dropping a block."""
        gate = self.network.get_buffer(_gate(block))
        gate.zero_()
        try:
            return self._divergence()
        finally:
            gate.fill_(1)

    def _divergence(self) -> float:
        """From the original's outputs: Kullback-Leibler for classifiers, else mean squared error."""
        inputs, target = self.batch
        with torch.no_grad():
            found = as_tuple(self.network(*inputs))
            return max(float(distillation_loss(found, self.original, target, temperature=1, weight=1)), LEAST)

    @contextmanager
    def _silenced(self, group: Group, units: Sequence[int]) -> Iterator[None]:
        """The units' positions of all parameters at zero: what cutting them leaves."""
        kept: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for member in group.members:
                weight = self.parameters.get(member.parameter)
                if weight is not None:
                    kept.append((weight, weight.clone()))
                    weight.index_fill_(member.dim, positions(member, units), 0)
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, before in reversed(kept):
                    weight.copy_(before)


def _trial(run: Run, shape: Shape, batch: Batch) -> _Trial:
    network, _ = adaptive(run.program)
    nodes = {node.name: node for node in network.graph.nodes}
    for block in shape.blocks:
        network.register_buffer(_gate(block), torch.ones(()))
        _insert_gate(network, nodes[block.add], block)
    network.recompile()
    # On smaller images statistics shift without any cut: that is the size's damage, and counted once.
    reference = run.program.module if run.origin is None else network
    with torch.no_grad():
        original = as_tuple(reference(*batch[0]))
    return _Trial(
        network=network, parameters=dict(network.named_parameters()), batch=batch, original=original
    )


def _gate(block: Block) -> str:
    return f"gate_of_{block.add}"


def _insert_gate(network: GraphModule, addition: Node, block: Block) -> None:
    """add(trunk, branch) becomes add(trunk, branch * gate)."""
    branch = addition.args[block.operand]
    assert isinstance(branch, Node)
    with network.graph.inserting_before(addition):
        gate = network.graph.get_attr(_gate(block))
        gated = network.graph.call_function(torch.ops.aten.mul.Tensor, (branch, gate))
    addition.update_arg(block.operand, gated)


def judged(data: Data) -> Batch:
    """The training samples on which divergences are measured."""
    return data.calibration(JUDGED)


def divergence_of(run: Runner, program: Program, batch: Batch) -> float:
    """Nats (mean squared error where there are no classes) between outputs of `run` and the program's."""
    with torch.no_grad():
        original = as_tuple(program.module(*batch[0]))
        found = run(batch[0])
        return float(distillation_loss(found, original, batch[1], temperature=1, weight=1))
