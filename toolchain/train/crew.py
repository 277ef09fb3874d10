"""Who computes the gradients of a training step: this process alone, or several, a share of the batch each.

The first process leads. It alone has the state of the training: optimizer, gates and their draws,
constraints, averages, checkpoints. In every step it sends out the weights to compute with; what comes back is
the gradient of the whole batch, which does not depend on how many processes had a share in it but for
rounding. (It does where dropout draws, where the loss leaves out some positions of a target, and where
further outputs are followed relative to their variance.)
"""

from __future__ import annotations

import copy
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule

from toolchain.contracts import Data
from toolchain.errors import CompressError, DeviceError, Interrupted
from toolchain.processes import processes
from toolchain.train.changed import Changed
from toolchain.train.devices import best_device, computing
from toolchain.train.distil import followed_loss
from toolchain.train.links import Gone, Links
from toolchain.train.synchronised import Sharing, synchronised
from toolchain.values import Training

if TYPE_CHECKING:
    from toolchain.contracts import Batch

INTERNAL: Final = 70
_APART: Final = 7919
"""Between the seeds of two processes' dropout."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a step is computed with. `module` is in train mode, `teacher` in eval mode, both on `device`."""

    module: GraphModule
    teacher: GraphModule | None
    data: Data
    training: Training
    device: torch.device


class Alone:
    """The only process."""

    def ready(self) -> None:
        """All that is read at the start has been read."""

    def batches(self, job: Job, seed: int) -> Iterator[Batch]:
        """This process's share of every batch of an epoch, shuffled by `seed`."""
        return job.data.train(job.training.batch_size, seed=seed, augment=job.training.augment)

    def backward(
        self,
        job: Job,
        batch: Batch,
        weights: Mapping[str, Tensor] | None = None,
        penalty: Tensor | None = None,
    ) -> tuple[float, int]:
        """Add the gradients of a step to those of all parameters: (mean loss of the batch, its samples).

        Args:
            job: what to compute with.
            batch: this process's share.
            weights: those that differ from the module's own; gradients go on through them.
            penalty: added to the loss (0-d); not part of the loss given back.
        """
        inputs, target = tuple(x.to(job.device) for x in batch[0]), batch[1].to(job.device)
        loss = _loss(job.module, weights, job.teacher, (inputs, target), job.data, job.training)
        whole = loss if penalty is None else loss + penalty.to(loss.device)
        whole.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), len(target)


class Lead(Alone):
    """The first of several processes."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._sharing = Sharing(rank=0, size=links.size, total=links.total)
        self._sent: GraphModule | None = None
        self._taught: GraphModule | None = None
        self._idle = True
        """Whether the others wait for a message."""

    def ready(self) -> None:
        """Wait for the others: they read the network and the data too, and would disturb measurements."""
        with self._together():
            self._links.meet()

    def batches(self, job: Job, seed: int) -> Iterator[Batch]:
        """The first share of every batch; the others begin the same epoch."""
        self._send(job)
        with self._together():
            self._links.tell("epoch", (job.training.batch_size, seed, job.training.augment))
        return job.data.train(
            job.training.batch_size, seed=seed, augment=job.training.augment, part=(0, self._links.size)
        )

    def backward(
        self,
        job: Job,
        batch: Batch,
        weights: Mapping[str, Tensor] | None = None,
        penalty: Tensor | None = None,
    ) -> tuple[float, int]:
        """As of one process, with the whole batch."""
        self._send(job)
        used: dict[str, Tensor] = {name: job.module.get_parameter(name) for name in self._names}
        known = {id(parameter): name for name, parameter in used.items()}
        for name, weight in (weights or {}).items():
            if (first := known.get(id(job.module.get_parameter(name)))) is not None:
                used[first] = weight
        with self._together():
            self._links.tell("step")
            self._links.share(_flat(used.values()))
            found = _summed(self._links, self._sharing, self._graph, job, batch, used)
        slopes, loss, count = found
        roots = [used[name] for name in slopes if used[name].requires_grad]
        ends = [slope for name, slope in slopes.items() if used[name].requires_grad]
        if penalty is not None and penalty.requires_grad:
            roots, ends = [*roots, penalty], [*ends, torch.ones_like(penalty)]
        torch.autograd.backward(roots, ends)
        return loss, count

    def end(self, code: int) -> None:
        """Let the others go, wherever they are."""
        if self._idle:
            with suppress(Gone):
                self._links.tell("end", code)
        self._links.end(code)

    def stopped(self) -> Exception:
        """What a signal to stop is about."""
        return self._links.failure(0.0) or Interrupted(
            f"stopped: another of the {self._links.size} processes has ended, or torchrun was told to end",
            hint="what is finished is kept: the same command continues",
        )

    def _send(self, job: Job) -> None:
        """The networks, where they are not those sent last."""
        if self._sent is job.module and self._taught is job.teacher:
            return
        self._graph = synchronised(job.module, self._sharing)
        known = self._taught is job.teacher and self._sent is not None
        teacher = None if known or job.teacher is None else _carried(job.teacher)
        self._names = [n for n, p in self._graph.named_parameters() if p.is_floating_point()]
        content = (_carried(job.module), self._names, known, teacher, job.training, _changes(job.data))
        with self._together():
            self._links.tell("network", pickle.dumps(content))
        self._sent, self._taught = job.module, job.teacher

    @contextmanager
    def _together(self) -> Iterator[None]:
        """While the others are at work; what breaks then is said as the others say it."""
        self._idle = False
        try:
            yield
        except Gone as error:
            raise self._links.failure() or _nameless(self._links.size) from error
        self._idle = True


class Helper:
    """Any other process: it computes its share of every step, of the same data."""

    def __init__(self, links: Links, data: Data | None) -> None:
        self._links, self._data = links, data
        self._sharing = Sharing(rank=links.rank, size=links.size, total=links.total)
        self._device = best_device()
        self._batches: Iterator[Batch] = iter(())

    def serve(self) -> int:
        """Do what the first process says until it ends; its exit code."""
        self._links.meet()
        while True:
            what, content = self._links.hear()
            if what == "end":
                return int(content)
            if what == "network":
                self._take(*pickle.loads(content))
            elif what == "epoch":
                self._begin(*content)
            else:
                self._step()

    def _take(
        self,
        module: GraphModule,
        names: Sequence[str],
        known: bool,
        teacher: GraphModule | None,
        training: Training,
        changes: Sequence[Callable[..., Data]],
    ) -> None:
        assert self._data is not None
        self._names, data = names, self._data
        for change in reversed(changes):
            data = change(data=data)
        if not known:
            self._teacher = None if teacher is None else teacher.to(self._device)
        module = module.to(self._device)
        self._graph = synchronised(module, self._sharing)
        self._job = Job(
            module=module, teacher=self._teacher, data=data, training=training, device=self._device
        )

    def _begin(self, batch_size: int, seed: int, augment: bool) -> None:
        torch.manual_seed(seed + _APART * self._links.rank)
        part = self._links.rank, self._links.size
        self._batches = self._job.data.train(batch_size, seed=seed, augment=augment, part=part)

    def _step(self) -> None:
        own = {name: self._job.module.get_parameter(name).detach() for name in self._names}
        used = _split(self._links.share(torch.empty_like(_flat(own.values()))), own)
        _summed(self._links, self._sharing, self._graph, self._job, next(self._batches, None), used)


_current: list[Alone] = [Alone()]


def crew() -> Alone:
    """Who computes in this process."""
    return _current[-1]


@contextmanager
def leading() -> Iterator[None]:
    """Lead the other processes, where there are any, until the body ends; then they end too."""
    if processes() == 1:
        yield
        return
    lead, code = Lead(Links()), INTERNAL
    _current.append(lead)
    try:
        with _stoppable(lead):
            yield
        code = 0
    except CompressError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = Interrupted.exit_code
        raise
    finally:
        _current.pop()
        lead.end(code)


@contextmanager
def _stoppable(lead: Lead) -> Iterator[None]:
    """`torchrun` stops all processes when one ends, by a signal that would end this one without a word."""

    def stop(number: int, frame: object) -> None:
        del number, frame
        raise lead.stopped()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def help_with(links: Links, data: Data | None) -> int:
    """Help the first process until it ends: its exit code."""
    try:
        code = Helper(links, data).serve()
    except Gone:
        code = links.ended() or DeviceError.exit_code
    links.end(code)
    return code


def _loss(
    module: GraphModule,
    weights: Mapping[str, Tensor] | None,
    teacher: GraphModule | None,
    batch: Batch,
    data: Data,
    training: Training,
) -> Tensor:
    """The mean loss of a batch on the module's device (0-d), with `weights` in the place of its own."""

    def student(*given: Tensor) -> Any:
        return module(*given) if weights is None else torch.func.functional_call(module, dict(weights), given)

    with computing(batch[1].device, half=training.half):
        return followed_loss(student, teacher, batch, data, training)


def _summed(
    links: Links,
    sharing: Sharing,
    graph: GraphModule,
    job: Job,
    batch: Batch | None,
    used: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], float, int]:
    """The gradients of the whole batch by parameter, its mean loss and its samples; on every process."""
    count = 0 if batch is None else len(batch[1])
    sharing.counted = count > 0
    if (
        batch is None or count == 0
    ):  # fewer samples than processes: this one computes along, and counts for nothing
        batch = job.data.calibration(1)
    inputs, target = tuple(x.to(job.device) for x in batch[0]), batch[1].to(job.device)
    leaves = {name: weight.detach().requires_grad_() for name, weight in used.items()}
    loss = count * _loss(graph, leaves, job.teacher, (inputs, target), job.data, job.training)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    slopes = {name: slope for name, slope in zip(leaves, found, strict=True) if slope is not None}
    tail = torch.stack([loss.detach().float(), loss.new_tensor(float(count)).float()])
    total = links.total(_flat([*slopes.values(), tail]))
    samples = total[-1]
    shapes = {name: leaves[name] for name in slopes}
    return _split(total[:-2] / samples, shapes), float(total[-2] / samples), int(samples)


def _nameless(size: int) -> CompressError:
    return DeviceError(
        f"one of the {size} processes that train is gone",
        hint="out of memory? what is finished is kept: the same command continues",
    )


def _changes(data: Data) -> list[Callable[..., Data]]:
    """What was done to the samples that every process reads (reduced, cut), to do again; last first."""
    found: list[Callable[..., Data]] = []
    while isinstance(data, Changed):
        rest = {field.name: getattr(data, field.name) for field in fields(data) if field.name != "data"}
        found.append(partial(type(data), **rest))
        data = data.data
    return found


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _split(flat: Tensor, shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts of a flat tensor in the shapes, types and layouts of others."""
    parts = torch.split(flat, [like.numel() for like in shapes.values()])
    return {
        name: torch.empty_like(like).copy_(part.view(like.shape))
        for (name, like), part in zip(shapes.items(), parts, strict=True)
    }


def _carried(module: GraphModule) -> GraphModule:
    """A copy for another process: on the CPU, for its devices may be others; it is traced anew there."""
    graph = copy.deepcopy(module.graph)
    graph._tracer_cls = None
    found = copy.deepcopy(GraphModule(module, graph)).cpu()
    for parameter in found.parameters():
        parameter.grad = None
    return found
