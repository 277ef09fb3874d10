"""A device's A/A noise: how far apart measurements of one unchanged model come out, and what that hides."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

from toolchain.latency.paired import BLOCK, look_sizes, ratio_interval, spent
from toolchain.latency.timings import CONDITIONS
from toolchain.plain import from_plain, to_plain
from toolchain.values import Conditions

TIMES: Final = 3.0
"""A threshold is at least this many times the noise: what an unchanged model shows once in 370 blocks."""
POWER: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What A/A blocks of `BLOCK` pairs showed, each block a process of its own.

    `ratio` is the standard deviation of a block's log ratio (0.01: about 1 %). `seconds` is how long a block
    took, `model` what was measured, `clock` what the pairs counted (`cpu` or `wall`), `created` when.
    """

    ratio: float
    blocks: int
    seconds: float
    model: str
    clock: str
    created: str
    identity: Mapping[str, Any]


def block_spread(blocks: Sequence[Sequence[float]]) -> float:
    """Standard deviation of the blocks' Hodges-Lehmann estimates of the log ratio; two blocks at least."""
    return statistics.stdev(math.log(ratio_interval(block, 0.5).value) for block in blocks)


def visible(noise: Noise, seconds: float) -> float:
    """How far above the threshold a slow-down must be to be called in `POWER` of all runs of `seconds`.

    A ratio minus 1. The time holds the sequence and its confirmation, which takes as long. Normal
    approximation of the last look that fits; infinite where not even the first does.
    """
    blocks = int(seconds / 2 / noise.seconds)
    if blocks < 1:
        return math.inf
    looks = next(k for k in count(1) if look_sizes(k + 1)[-1] > blocks * BLOCK)
    pairs = look_sizes(looks)[-1]
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - spent(looks) / 2) + normal.inv_cdf(POWER)
    return math.expm1(quantiles * noise.ratio / math.sqrt(pairs / BLOCK))


def identity_of(conditions: Conditions) -> dict[str, Any]:
    """What two measurements must have in common to be compared: the driver too, whatever its version."""
    found = asdict(conditions)
    driver = (conditions.driver or "").partition(" ")[0]
    return {name: found[name] for name in CONDITIONS} | {"driver": driver}


def noise_file(cache: Path, identity: Mapping[str, Any]) -> Path:
    """Where the noise of a device under these conditions is kept."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return cache / "noise" / f"{digest}.json"


def known_noise(cache: Path, identity: Mapping[str, Any]) -> Noise | None:
    """The noise measured under these conditions; None where there is none, or the file is not whole."""
    try:
        text = noise_file(cache, identity).read_text(encoding="utf-8")
        found = from_plain(Noise, json.loads(text))
    except (OSError, ValueError):
        return None
    return found if found.identity == identity and found.ratio > 0 else None


def noise_text(noise: Noise) -> str:
    """The file's content."""
    return json.dumps(to_plain(noise), indent=1) + "\n"
