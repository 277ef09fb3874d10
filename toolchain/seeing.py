"""What a network does not look at: parts of its input that leave it, learned together with its channels.

Given:  what a method that prunes the input too has learned of the whole network
Result: the run whose network is handed the rest of the input, planned for anew under the same limits: every
        layer is timed at the sizes that it has now
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolchain.baseline import Baseline
from toolchain.closing import Choice
from toolchain.contest import Ground
from toolchain.damage import Damages, damage_together
from toolchain.errors import UnsupportedError
from toolchain.foresight import foresee_again
from toolchain.input_view import USEFUL, InputView, described
from toolchain.planning import decide_on_part
from toolchain.program.entrance import Entrance, entrance, masked, narrowed, unmasked
from toolchain.resources import shape_of
from toolchain.run import Run
from toolchain.sizing import at_view
from toolchain.train.learning import Learned
from toolchain.train.lesson import Lesson, Verdicts
from toolchain.values import Program

Square = tuple[int, int]


def watching(lesson: Lesson, price: float) -> Lesson:
    """The lesson in which parts of the input may go as well, which is worth `price` nats as a whole.

    Raises:
        UnsupportedError: nothing of this input can be left out.
    """
    found = entrance(lesson.program)
    program = masked(lesson.program) if found.block else lesson.program
    return replace(lesson, program=program, entrance=found, price=price)


def on_a_part(run: Run, baseline: Baseline, choice: Choice, learned: Learned, damages: Damages) -> Choice:
    """The choice for a `run` whose network, and what was learned of it, see a part of the input already.

    Raises:
        BudgetError: no network for this part of the input was measured, or predicted, under the budget.
    """
    shape = shape_of(run)
    blocks = {block.name for block in shape.blocks}
    known = replace(damages, blocks={n: nats for n, nats in damages.blocks.items() if n in blocks})
    ground = Ground(
        shape=shape,
        damages=known,
        size_damage=damage_together(run, run.program),
        widths=learned.verdicts.widths,
    )
    run.once("ground", lambda: ground)
    if choice.contender is None:
        return foresee_again(run, choice.combination)
    return decide_on_part(run, baseline, f"what {damages.criterion} learned, under the budget")


def partly_seeing(run: Run, lesson: Lesson, learned: Learned) -> tuple[Learned, Run | None]:
    """What was learned without its mask, and the run for the rest of the input; None where all of it stays.

    What becomes of the input is among the notes.
    """
    assert lesson.entrance is not None
    if lesson.entrance.block:
        learned = replace(learned, program=unmasked(learned.program))
    if lesson.entrance.stays:
        run.notes.append(f"channels or features of the input that stay: {lesson.entrance.stays}")
    view, refused = view_of(lesson.entrance, learned.program, learned.verdicts)
    if refused:
        run.notes.append(f"pixels at the border are set to 0, not cropped: {refused}")
    if view is None:
        run.notes.append("nothing of the input was found to be useless: all of it stays")
        return learned, None
    run.notes.append(f"of the input the network is handed {described(view)}")
    wiser = replace(run, program=replace(learned.program, loose=()), learned_from=run.program)
    return learned, at_view(wiser, view)


def view_of(found: Entrance, program: Program, verdicts: Verdicts) -> tuple[InputView | None, str]:
    """What the verdicts leave of the program's input, None for all of it; and why borders are not cropped."""
    assert verdicts.inputs is not None
    whole = InputView(shape=found.shape, flat=found.flat)
    nats: list[float | None] = [None] * whole.count
    for name, worth in verdicts.inputs.items():
        for places, each in zip(found.positions[name], worth, strict=True):
            for place in places:
                nats[place] = each
    kept = tuple(place for place, each in enumerate(nats) if each is None or each > USEFUL)
    view = replace(
        whole,
        kept=None if len(kept) == whole.count else kept,
        block=found.block,
        nats=tuple(nats),
        block_nats=verdicts.squares,
    )
    dark = [
        (row, column)
        for row, line in enumerate(verdicts.squares)
        for column, each in enumerate(line)
        if each <= USEFUL
    ]
    view, refused = _cropped(view, dark, program) if dark else (view, "")
    unchanged = view.kept is None and not dark
    return (None if unchanged else view), refused


def _cropped(view: InputView, dark: Sequence[Square], program: Program) -> tuple[InputView, str]:
    """The view without dark squares: cropped to the others where the program allows, blank within."""
    rows, columns = len(view.block_nats), len(view.block_nats[0])
    lit = {(r, c) for r in range(rows) for c in range(columns)} - set(dark)
    top, bottom = min(r for r, _ in lit), max(r for r, _ in lit) + 1
    left, right = min(c for _, c in lit), max(c for _, c in lit) + 1
    blank = replace(view, blank=tuple(dark))
    if (bottom - top, right - left) == (rows, columns):
        return blank, ""
    height, width = view.shape[1:]
    ends = min(bottom * view.block, height), min(right * view.block, width)
    crop = (top * view.block, left * view.block, ends[0] - top * view.block, ends[1] - left * view.block)
    inside = tuple((r, c) for r, c in dark if top <= r < bottom and left <= c < right)
    cropped = replace(view, crop=crop, blank=inside)
    try:
        narrowed(program, cropped)
    except UnsupportedError as error:
        return blank, str(error)
    return cropped, ""
