"""Checks of pre-training: codes, the scale of the loss, masks, batches, and whether a model has learnt."""

import math
from collections.abc import Callable

from experiments.doctor.bands import band_of, band_position
from experiments.doctor.curves import Curves, mean, recent
from experiments.doctor.findings import Finding
from experiments.doctor.wording import count, loss
from experiments.report.units import percent

# A model that uses fewer than two entries of each group on average has collapsed: see runs.tasks.Task.
COLLAPSED_ENTRIES = 2
# Healthy runs of our own use 7 % to 45 % of all entries at their end. After about 20 to 100 updates they pass
# through 3 %; a run that is still so low after SETTLED_UPDATES mostly stays there (fairseq issue 3391).
FEW_CODES_SHARE, SETTLED_UPDATES = 0.05, {"tiny": 2_000, "other": 10_000}
# The contrastive task is never solved: base reaches 0.63. Above this the right frame is trivial to pick.
TRIVIAL_ACCURACY = 0.95
# The untrained models of this project begin within 5 % of the logarithm, and fairseq's within 3 %.
SCALE_TOLERANCE = 0.15
SUM_RATIO = 3.0  # a sum over frames or clips is larger by far more than this
# wav2vec 2.0 and BEST-RQ hide about half of all frames; the published recipes lie between 0.4 and 0.6.
FEW_MASKS, HARDLY_MASKS = 0.25, 0.05
# Our smallest batch that has learnt has 2 s; a batch of less holds one clip, and so one speaker.
SMALLEST_BATCH_SECONDS = 2.0
# wav2vec 2.0's batches hide about 140,000 frames (1.6 h); a tenth of that has not been reported to work.
FEWEST_MASKED_FRAMES = 14_000
# Tiny models beat their control after 80 updates of one model, where data and rates were right. Base warms up
# for 32,000 updates; public logs of it are well below the loss of knowing nothing after 1,000 (fairseq 2981).
FEWEST_UPDATES = {"tiny": 200, "other": 5_000}
# A model has learnt if its accuracy exceeds the control's by so many standard errors. With few held-out clips
# these are wide: then an accuracy above control and chance will do beside a loss well below that of knowing
# nothing. Logs without a control have to show a multiple of the accuracy of guessing.
STANDARD_ERRORS, TIMES_CHANCE, LEARNT_LOSS = 3.0, 2.0, 0.9
# Peak rates of published and our own recipes with Adam: 3e-4 to 2e-3. Beyond a factor of about ten to either
# side, a rate explains why nothing was learnt.
LOWEST_RATE, HIGHEST_RATE = 2e-5, 1e-2
BELOW_BAND_SPREADS = 3.0
# The values that an accuracy is compared with, the better one first, and their names in a sentence.
BESIDE = {"control": "its control", "chance": "guessing"}


def code_collapse(curves: Curves) -> Finding | None:
    """Find codes, or predictions, that have become nearly the same for all frames."""
    held = curves.last("heldout_codes", "codes")
    if held is None or not curves.groups:
        return None
    if (accuracy := curves.last("heldout_accuracy", "accuracy")) and curves.kind == "wav2vec2":
        trivial = accuracy > TRIVIAL_ACCURACY
    else:
        trivial = False
    advice = f"Start again with {curves.spelling.codes}."
    if held < COLLAPSED_ENTRIES * curves.groups or trivial:
        right = f", and the right frame was picked in {percent(accuracy)} of cases" if trivial else ""
        return Finding(
            "broken",
            "codes have collapsed",
            f"The perplexity of codes is {held:.1f} of {curves.entries}{right}: nearly all frames share a "
            "code.",
            advice,
        )
    share, codes = held / curves.entries, curves.values("codes") or curves.values("heldout_codes")
    rising = len(codes) > 3 and mean(recent(codes)) > 1.1 * mean(codes[len(codes) // 2 : -len(codes) // 4])
    settled = curves.unit == "updates" and curves.steps >= settled_updates(curves)
    if curves.kind == "wav2vec2" and share < FEW_CODES_SHARE and settled and not rising:
        return Finding(
            "watch",
            "few codes",
            f"After {count(curves.steps, curves.unit)} only {held:.1f} of {curves.entries} codes are in use "
            f"({percent(share, 1)}), and their number does not rise. Distractors then often share the right "
            "code, and the accuracy flatters.",
            advice,
        )
    return None


def loss_scale(curves: Curves) -> Finding | None:
    """Find a loss of another unit: a model at chance has the logarithm of the number of candidates."""
    expected = curves.chance_loss
    first = curves.first_loss if curves.first_loss is not None else curves.first("loss", "heldout_loss")
    if expected is None or first is None or not curves.pretrains:
        return None
    accuracy = (
        curves.first_accuracy
        if curves.first_loss is not None
        else curves.first("accuracy", "heldout_accuracy")
    )
    ratio = first / expected
    at_chance = accuracy is not None and accuracy < TIMES_CHANCE * math.exp(-expected)
    above = first > (1 + SCALE_TOLERANCE) * expected + curves.chance_excess
    if not (above or (at_chance and ratio < 1 - SCALE_TOLERANCE)):
        return None
    guesses = {
        1 / math.log(2): "It looks like bits (log2) in place of nats",
        math.log(2): "It looks like nats that were divided by ln 2 twice, or bits that were read as nats",
    }
    guess = next((words for r, words in guesses.items() if abs(ratio / r - 1) < 0.06), None)
    if guess is None and ratio < SUM_RATIO and ratio > 1:
        return None  # a rate that is too high raises the loss as well; another check says so
    if guess is None:
        kind = (
            "a sum over frames or clips in place of a mean" if ratio > 1 else "a mean that was divided again"
        )
        guess = f"It looks like {kind}"
    return Finding(
        "broken" if ratio > SUM_RATIO else "watch",
        "loss of a wrong scale",
        f"The first loss is {loss(first)}, but a model that knows nothing has "
        f"ln({round(math.exp(expected))}) = {loss(expected)} nats a masked frame. {guess}.",
        "Divide the loss by the number of masked frames and give it in nats, or compare no value with "
        f"other runs; gradients have the same factor, so set {curves.spelling.rate} and "
        f"{curves.spelling.clipping} to match.",
    )


def masks(curves: Curves) -> Finding | None:
    """Find masks that hide too little for the task to be hard."""
    held = curves.values("masked_share")
    if not held or (share := mean(held)) >= FEW_MASKS:
        return None
    return Finding(
        "broken" if share < HARDLY_MASKS else "watch",
        "masks are too few",
        f"{percent(share, 1)} of all frames are masked; wav2vec 2.0 and BEST-RQ mask about half. Each clip "
        "then teaches little, and its hidden frames can be copied from their neighbours.",
        curves.spelling.masks,
    )


def batches(curves: Curves) -> Finding | None:
    """Find updates that hear too little speech."""
    seconds, frames = curves.seconds_an_update, curves.values("masked_frames")
    if seconds is not None and seconds < SMALLEST_BATCH_SECONDS:
        because = f"An update hears {seconds:g} s of speech: one clip, and so one speaker and one sentence."
    elif curves.size == "base" and frames and mean(frames) < FEWEST_MASKED_FRAMES:
        because = (
            f"An update has {mean(frames):,.0f} masked frames on average; the recipe of wav2vec 2.0 base has "
            "about 140,000 (1.6 h of speech), and its rate is meant for them."
        )
    else:
        return None
    return Finding(
        "watch",
        "batches are too small",
        because,
        f"Raise {curves.spelling.batch}, or lower {curves.spelling.rate}.",
    )


def least_accuracy(curves: Curves) -> float | None:
    """Compute the accuracy above which a model has learnt; None if unknown.

    The accuracy has to exceed the control's by STANDARD_ERRORS. Beside a loss well below that of knowing
    nothing, it has to exceed the control and chance alone. Without a control it has to exceed a multiple of
    chance; with a loss too high for that, no accuracy is enough.
    """
    held, control = curves.last("heldout_loss", "loss"), curves.last("control")
    error = curves.last("standard_error")
    low = held is None or curves.chance_loss is None or held < LEARNT_LOSS * curves.chance_loss
    if control is not None and error is not None:
        certain = control + STANDARD_ERRORS * error
        return min(certain, max(control, curves.last("chance") or 0.0)) if low else certain
    if curves.chance_loss is None:
        return None
    return TIMES_CHANCE * math.exp(-curves.chance_loss) if low else math.inf


def has_learnt(curves: Curves) -> bool | None:
    """Tell whether a model is better than its control, than chance and than nothing; None if unknown."""
    accuracy, least = curves.last("heldout_accuracy", "accuracy"), least_accuracy(curves)
    return None if accuracy is None or least is None else accuracy > least


def learning(curves: Curves) -> Finding | None:
    """Find a model that has learnt nothing, and say why: too short, rate too low or too high, no gradient."""
    if not curves.pretrains or has_learnt(curves) is not False or not curves.steps:
        return None
    fewest = fewest_updates(curves)
    if curves.unit != "updates" or (not curves.finished and curves.steps < fewest):
        return None  # too early to tell
    accuracy = curves.last("heldout_accuracy", "accuracy")
    told = [f"After {count(curves.steps, curves.unit)}"]
    if (held := curves.last("heldout_loss", "loss")) is not None and curves.chance_loss is not None:
        told.append(
            f" the loss is {loss(held)} nats; a model that knows nothing has {loss(curves.chance_loss)}"
        )
    beside = next((name for name in BESIDE if curves.values(name)), None)
    if accuracy is not None and beside is not None:
        joined = ", and" if len(told) > 1 else ""
        told.append(
            f"{joined} the accuracy is {accuracy:.3f} against {curves.last(beside):.3f} of {BESIDE[beside]}"
        )
    because, rate = "".join(told) + ".", curves.peak_rate
    gradients = curves.values("gradient_norm")
    if gradients and max(recent(gradients)) == 0:
        return Finding(
            "broken",
            "no gradient",
            f"{because} The norm of the gradient is 0.",
            "Look for frozen parameters, a detached loss or codes that have collapsed; then start again "
            f"with a lower {curves.spelling.rate}.",
        )
    lowest, highest = rate_limits(curves)
    if rate is not None and rate < lowest:
        return Finding(
            "broken",
            "rate too low",
            f"{because} The peak rate is {rate:g}; rates that have worked lie above {lowest:g}.",
            f"Raise {curves.spelling.rate}, for example to {10 * lowest:g}.",
        )
    if rate is not None and rate > highest:
        return rate_too_high(
            curves, f"{because} The peak rate is {rate:g}; rates that have worked lie below {highest:g}."
        )
    if curves.steps < fewest:
        return Finding(
            "watch",
            "too short a run",
            f"{because} Models of this size begin to learn within about {count(fewest, 'updates')}.",
            f"Raise {curves.spelling.length}.",
        )
    return Finding(
        "broken",
        "nothing learnt",
        because,
        f"Try {curves.spelling.rate} at a third and at three times its value; look at the clips (`w2v-jax "
        "data describe`): silence and noise teach nothing.",
    )


def fewest_updates(curves: Curves) -> int:
    """Give the updates within which a model of this size begins to learn."""
    return FEWEST_UPDATES[_scale(curves)]


def settled_updates(curves: Curves) -> int:
    """Give the updates after which few codes stay few."""
    return SETTLED_UPDATES[_scale(curves)]


def _scale(curves: Curves) -> str:
    return "tiny" if curves.size is not None and curves.size.endswith("tiny") else "other"


def rate_limits(curves: Curves) -> tuple[float, float]:
    """Give the lowest and the highest peak rate that have worked with the run's optimizer."""
    if curves.optimizer == "sgd":
        return 0.0, math.inf  # its rates depend on the scale of the loss
    part = 0.1 if curves.optimizer == "lion" else 1.0
    return part * LOWEST_RATE, part * HIGHEST_RATE


def rate_too_high(curves: Curves, because: str) -> Finding:
    """Make the finding of a rate that is too high, with a rate to try."""
    rate = curves.peak_rate
    tried = f", for example to {min(rate / 10, 0.1 * rate_limits(curves)[1]):.2g}" if rate else ""
    return Finding(
        "broken", "rate too high", because, f"Lower {curves.spelling.rate}{tried}, and start again."
    )


def against_band(curves: Curves) -> Finding | None:
    """Find a run whose accuracy lies far below that of base runs known to be healthy."""
    compared, band = band_position(curves), band_of(curves)
    if compared is None or band is None or not band.comparable:
        return None
    value, middle, spread = compared
    if value >= middle - BELOW_BAND_SPREADS * spread:
        return None
    return Finding(
        "watch",
        "accuracy below the band",
        f"The accuracy is {value:.3f} after {count(curves.steps, curves.unit)}; {band.source} had "
        f"{middle:.3f} ± {spread:.3f} there.",
        f"If updates hear less than 1.6 h of speech, raise {curves.spelling.batch} or wait longer; "
        f"otherwise check {curves.spelling.rate} and the masks.",
    )


CHECKS: tuple[Callable[[Curves], Finding | None], ...] = (
    code_collapse, loss_scale, masks, learning, batches, against_band,
)  # fmt: skip
