"""`finetune --minutes`: the updates that fit into a budget of wall time, by a pace that is measured first."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments.report.units import duration
from w2v_jax.data.batches.labelled import LabelledBatches
from w2v_jax.errors import UserError

# Share of the budget that is planned; the rest is for checkpoints and slower updates.
PLANNED_SHARE = 0.9
SAMPLED_BATCHES = 64  # batches whose shapes stand for those of an epoch
FEWEST_VALIDATIONS = 5


class Pace(NamedTuple):
    """The pace at which a run trains, once everything is compiled.

    Attributes:
        update_seconds: mean seconds of an update.
        validation_seconds: seconds of a validation.
        measuring_seconds: seconds of compiling and measuring.
    """

    update_seconds: float
    validation_seconds: float
    measuring_seconds: float


def measure(
    batches: LabelledBatches,
    update: Callable[[Any], Any],
    validate: Callable[[], Any],
    clock=time.perf_counter,
) -> Pace:
    """Compile what a run needs, and measure its pace.

    Args:
        batches: training batches; the first ones tell how often each shape comes.
        update: trains on a batch; it may leave its result on the device.
        validate: validates once, to the end.
        clock: gives seconds.
    """
    started = clock()
    firsts, counts = {}, {}
    for step in range(min(batches.steps_per_epoch, SAMPLED_BATCHES)):
        batch = batches[step]
        shape = tuple(leaf.shape for leaf in batch)
        firsts.setdefault(shape, batch)
        counts[shape] = counts.get(shape, 0) + 1
    total = 0.0
    for shape, batch in firsts.items():
        total += counts[shape] * _second_time(lambda held=batch: update(held), clock)
    validation_seconds = _second_time(validate, clock)
    return Pace(total / sum(counts.values()), validation_seconds, clock() - started)


def _second_time(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Measure the seconds of work that is compiled when it runs for the first time."""
    jax.block_until_ready(work())
    started = clock()
    jax.block_until_ready(work())
    return clock() - started


def updates_that_fit(minutes: float, pace: Pace, evaluate_every: Callable[[int], int]) -> int:
    """Compute how many updates fit into a budget, with their validations.

    Args:
        minutes: the budget.
        pace: the measured pace.
        evaluate_every: updates between validations of a run of so many updates.

    Raises:
        UserError: not one update fits.
    """

    def seconds(updates: int) -> float:
        validations = math.ceil(updates / evaluate_every(updates))
        return updates * pace.update_seconds + validations * pace.validation_seconds

    planned = PLANNED_SHARE * 60 * minutes
    if seconds(1) > planned:
        enough = math.ceil(seconds(FEWEST_VALIDATIONS) / PLANNED_SHARE / 6) / 10
        raise UserError(
            f"--minutes {minutes:g} is too short: an update takes {pace.update_seconds:.2g} s and a "
            f"validation {pace.validation_seconds:.2g} s; give at least --minutes {enough:g}"
        )
    low, high = 1, max(2, math.ceil(planned / pace.update_seconds) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if seconds(middle) <= planned else (low, middle)
    return low


def described(minutes: float, pace: Pace, updates: int) -> str:
    """Tell in a line what was measured, and what is planned."""
    return (
        f"--minutes {minutes:g}: {updates:,} updates fit; an update takes {pace.update_seconds:.2g} s "
        f"and a validation {pace.validation_seconds:.2g} s. Compiling and measuring took "
        f"{duration(pace.measuring_seconds)}, which do not count; nor does the scoring of test"
    )


def planned_before(minutes: float, updates: int) -> str:
    """Tell in a line what a run that continues has planned."""
    return f"--minutes {minutes:g}: the run has {updates:,} updates, as planned when it began"


class Deadline:
    """The end of the budget of one process."""

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.perf_counter):
        """Begin now; without a budget the end never comes."""
        self._clock, self._end = clock, math.inf if minutes is None else clock() + 60 * minutes

    def passed(self) -> bool:
        """Tell whether the budget is over."""
        return self._clock() > self._end
