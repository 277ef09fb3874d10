"""Joint pruning of weights and input data: budget-aware gates on channels, priced gates on the input.

Parts of the input whose gates close leave the network's signature together with the weights that listened
to them: channels of an image, features of a vector; squares of pixels are cropped where they lie at the
border, and set to zero elsewhere. What the rest loses is decided under the budget, as with `bar`.
Source: Hubens et al., joint pruning of weights and input data; the gates' prices are in
`toolchain/train/input_gates.py`, the budget's in `toolchain/train/budgeted.py`.
"""

from __future__ import annotations

from typing import Final

from toolchain.train.budgeted import Budgeted
from toolchain.train.input_gates import InputGates
from toolchain.train.lesson import Learner, Lesson, Pressure


def _begin(lesson: Lesson) -> Pressure:
    network = Budgeted(lesson)
    return network if lesson.entrance is None else InputGates(lesson, network)


LEARNER: Final = Learner(
    name="data",
    summary="the gates of bar, and gates on parts of the input: channels, features, pixels",
    begin=_begin,
    inputs=True,
)
