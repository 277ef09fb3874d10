"""The nouns that flow through the pipeline: frozen, keyword-only, free of heavy imports.

`Request -> Program -> Channels -> PrunePlan -> Program -> Artifacts -> Checks + Measurements -> Report`

An `Estimate` is not a `Measurement`: nothing converts one into the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from toolchain.input_view import InputView as InputView
from toolchain.placement import Placement
from toolchain.settings import Preprocessing as Preprocessing
from toolchain.settings import Storage
from toolchain.settings import Training as Training

if TYPE_CHECKING:
    from torch.fx import GraphModule

Precision = Literal["fp32", "fp16", "int8", "int8-weights", "mixed"]
"""`mixed` is int8 in which some layers stay in float."""
Verdict = Literal["held", "over", "inconclusive", "not measured"]
Status = Literal["pass", "fail", "not run"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, shape and dtype of an input or output; a `None` dimension is the dynamic batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Program:
    """The network as one torch.export graph: training IR, eval mode, batch norm kept, guards dropped.

    `module` is shared by reference and never changed by a stage: a stage copies before it rewrites.
    Parameter names are those of the user's network.
    `loose` names additions whose branches may keep different channels.
    """

    name: str
    module: GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Member:
    """One dimension of one parameter or buffer, cut by a group.

    `index[u]` lists the positions along `dim` that belong to unit u of the group (several where a view
    flattened H x W into the channels); positions of different units are disjoint.
    """

    parameter: str
    dim: int
    index: Sequence[tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels ("units") that may be removed one by one; removing unit u cuts `index[u]` of every member.

    All units of a group occur in the same parameters, so that widths are linear in the kept counts.
    `minimum` units always stay. `note` says when removal changes a normalisation's statistics.
    `sources` is for channels that loose additions put out: unit u stays while one of `sources[u]` does,
    which are (group, unit).
    """

    name: str
    size: int
    members: tuple[Member, ...]
    minimum: int = 1
    note: str = ""
    sources: tuple[tuple[tuple[str, int], ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Positions of one parameter dimension that no group may remove, and why."""

    parameter: str
    dim: int
    count: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Channels:
    """The outcome of the channel analysis: what may be removed together, and what may not at all.

    `unknown` counts, by name, the calls of operators without a rule that keep channels from being removed.
    `merged` are the channels of which other groups decide: those with `sources`.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    unknown: Mapping[str, int] = field(default_factory=dict)
    merged: tuple[Group, ...] = ()

    @property
    def all(self) -> tuple[Group, ...]:
        """All groups, those that can be chosen first."""
        return (*self.groups, *self.merged)

    def group(self, name: str) -> Group:
        """The group called `name`; KeyError where there is none."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A branch of an addition that may vanish whole: `add(trunk, branch)` becomes `trunk`.

    `add` names the addition's node, `operand` (0 or 1) its input that is dropped, `nodes` what dies with it
    and `parameters` the parameters and buffers among these.
    """

    name: str
    add: str
    operand: int
    nodes: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution or matrix product of the graph, as the latency models see it.

    `weight` names the parameter, [out, in / groups, *kernel] for convolutions ([in, out / groups, *kernel]
    when `transposed`) and [out, in] for linear layers. `input_size` / `output_size` are the spatial sizes
    (empty for linear layers; `tokens` then counts the rows multiplied per sample).
    """

    node: str
    kind: Literal["conv", "linear"]
    weight: str
    in_channels: int
    out_channels: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    input_size: tuple[int, ...] = ()
    output_size: tuple[int, ...] = ()
    tokens: int = 1
    transposed: bool = False
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Resources of one inference of one sample. `neurons` is the activation volume of all layers' outputs."""

    macs: int
    params: int
    weight_bytes: int
    neurons: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Hard upper limits; `None` is unlimited. `mb` bounds the delivered model file (10^6 bytes)."""

    ms: float | None = None
    mb: float | None = None
    macs: int | None = None
    params: int | None = None
    neurons: int | None = None
    max_drop: float | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A predicted latency. Never stored, printed or gated as a measured time."""

    ms: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under what a measurement was taken. What could not be read is None, never guessed.

    `frequency_mhz` is the clock at that moment; `max_mhz` and `boost` are how far it may go. `driver` is what
    ran the model: the C runner with its version, or Python. `celsius` is the hottest of its sensors.
    """

    device: str
    os: str
    cpu: str | None
    governor: str | None
    frequency_mhz: float | None
    load: tuple[float, ...] | None
    threads: int
    runtime: str
    runtime_version: str
    affinity: tuple[int, ...] | None = None
    max_mhz: float | None = None
    boost: bool | None = None
    driver: str | None = None
    celsius: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Wall-clock latency of one model file on one target: raw samples and what follows from them.

    `samples_ms[t]` are the timed runs of trial t, each trial a fresh session; trials of the models of one
    comparison are interleaved. The interval of p50 and p90 is 95 %, from order statistics of trials.
    `cpu_trials_ms[t]` is the median CPU time of trial t's runs, empty where the device does not tell;
    `peak_bytes` what the process grew by, where the file was measured alone; `placement` where operators ran.
    """

    label: str
    sha256: str
    runtime: str
    precision: Precision
    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p90_low_ms: float
    p90_high_ms: float
    cpu_p50_ms: float | None
    load_ms: float | None
    first_ms: float | None
    samples_ms: tuple[tuple[float, ...], ...]
    conditions: Conditions
    cpu_trials_ms: tuple[float, ...] = ()
    peak_bytes: int | None = None
    placement: Placement | None = None


@dataclass(frozen=True, kw_only=True)
class PrunePlan:
    """Which units stay, decided before anything is changed. JSON in, JSON out; replayable.

    `keep[group]` lists the kept unit numbers in ascending order; groups not named stay whole.
    `program` is the fingerprint of the program the plan was made for. `dropped` names residual blocks that
    vanish whole; they are dropped first, and `keep` speaks of what remains. `gap` is how far the damage may
    be above the least possible one, relative to it, over the widths looked at; None: not known. `resize` is
    the new (height, width) of the input; `keep` and `dropped` then speak of the network captured at it.
    `in_float` names, by their weights, the layers that stay in float where the precision is `mixed`. Where
    `connectivity` is mixed, `keep` speaks of groups of the network whose additions are loose. `inputs` is
    what of its input the network is handed where that is not all; `keep` then speaks of such a network.
    """

    program: str
    criterion: str
    keep: Mapping[str, tuple[int, ...]]
    runtime: str = ""
    precision: Precision = "fp32"
    estimate: Estimate | None = None
    cost: Cost | None = None
    damage: float = 0.0
    gap: float | None = None
    seed: int = 0
    dropped: tuple[str, ...] = ()
    resize: tuple[int, int] | None = None
    in_float: tuple[str, ...] = ()
    connectivity: Literal["tied", "mixed"] = "tied"
    inputs: InputView | None = None

    @property
    def changes_nothing(self) -> bool:
        """Whether the network stays as it is."""
        return not self.keep and not self.dropped and self.resize is None and self.inputs is None


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One exported file (or .mlpackage folder). `runtime` is what executes it on the target."""

    format: str
    runtime: str
    precision: Precision
    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """One verified statement: `value` against `limit`, in `unit`; "not run" has its reason in `detail`."""

    name: str
    subject: str
    status: Status
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    detail: str = ""


PLANNER: Final = "planner"
"""The method that prunes without training, by a criterion."""


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Pruning while training, before what is learned is cut and fine-tuned.

    `method` names a learner; `planner` prunes without training, by a criterion. `transition` is how the
    budget moves from the whole network to its limit. `price` is what the whole input is worth, in nats, to a
    method that removes parts of it. `strength` multiplies the weight of the method's own penalty.
    """

    method: str = PLANNER
    epochs: int = 10
    transition: str = "sigmoid"
    price: float = 1.0
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything the user asked for, already parsed; files are not opened yet.

    `variety` lowers the criterion's scores of channels like better ones. `connectivity` says whether branches
    of an addition may keep different channels: not, where the target is not slower for it, or always.
    `lr` overrides the learning rate of `training`; None lets the depth of the cut decide. `rescale` says
    whose weights make up for removed inputs, `refit` whether the cut network is fitted to the original before
    it is trained, `reestimate` whether batch norms get new statistics.
    `allow_resize` lets the images become smaller: to a share of their sides, or to these (height, width).
    `calibration` is the user's own latency model of the target, `device` where files are measured or checked.
    `budget_ram` is what TFLite Micro's arena may take, in bytes.
    """

    model: Path
    target: str
    out: Path
    budget: Budget
    data: str | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: tuple[str, ...] = ()
    metric: str = "top1"
    arch: str | None = None
    input_shape: tuple[tuple[int, ...], ...] | None = None
    trust_pickle: bool = False
    criterion: str = "auto"
    variety: bool = False
    rescale: Literal["none", "linear", "all"] = "none"
    connectivity: Literal["tied", "mixed", "always"] = "tied"
    reestimate: bool = False
    refit: bool = True
    allow_resize: float | tuple[tuple[int, int], ...] | None = None
    runtime: str = "auto"
    precisions: tuple[Precision, ...] = ("fp32", "int8", "mixed")
    formats: tuple[str, ...] = ("onnx", "coreml", "tflite")
    training: Training = field(default_factory=Training)
    learning: Learning = field(default_factory=Learning)
    storage: Storage | None = None
    lr: float | None = None
    threads: int = 1
    seed: int = 0
    resume: bool = False
    finish: bool = False
    plan: Path | None = None
    calibration: Path | None = None
    device: str | None = None
    require_measured: bool = False
    budget_ram: int | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the run found, ready to be written as JSON, Markdown, HTML and terminal text.

    `record` follows the schema documented in `docs/report.md`; `exit_code` is 0 when every check passed.
    """

    record: Mapping[str, Any]
    exit_code: int
