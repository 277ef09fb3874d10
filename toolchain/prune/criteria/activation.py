"""Mean activation: channels that are hardly active where the next layers read them.

Per reading layer the mean of |input| over samples and positions is divided by the layer's mean; the score is
the mean over the layers that read the group. Groups that no layer reads (queries and keys) are looked at
where they are put out.
Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017,
section 2.2 ("Activation").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from toolchain.contracts import Criterion, Evidence
from toolchain.prune.listening import Listener, Sight, needed, preferred
from toolchain.values import Channels, Program


def _score(program: Program, channels: Channels, evidence: Evidence) -> Mapping[str, tuple[float, ...]]:
    del channels
    listener = Listener(program)
    read, put_out = listener.zeros(), listener.zeros()
    readers: Counter[str] = Counter()
    writers: Counter[str] = Counter()

    def hear(sight: Sight) -> None:
        for name, values in listener.read_by(sight, _means(sight.input, sight.channel)).items():
            read[name] += values / values.mean().clamp(min=1e-300)
            readers[name] += 1
        for name, values in listener.put_out_by(sight, _means(sight.output, sight.channel)).items():
            put_out[name] += values / values.mean().clamp(min=1e-300)
            writers[name] += 1

    listener.listen(needed(evidence, "activation"), hear)
    for totals, counted in ((read, readers), (put_out, writers)):
        for name, times in counted.items():
            totals[name] /= times
    return preferred(read, put_out, readers)


def _means(values: Tensor, channel: int) -> Tensor:
    """The mean magnitude of every channel: [c]."""
    return values.detach().double().abs().movedim(channel, 0).flatten(1).mean(1)


CRITERION: Final = Criterion(
    name="activation",
    summary="mean activation where the next layers read a unit; needs data",
    needs_data=True,
    score=_score,
)
