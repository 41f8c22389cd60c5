"""Checks of any training: values that are not finite, losses that rise, held-out losses, clients."""

import math
from collections.abc import Callable

from experiments.doctor.curves import Curves, mean, recent
from experiments.doctor.findings import Finding
from experiments.doctor.pretraining_checks import rate_limits, rate_too_high
from experiments.doctor.wording import count, loss
from experiments.report.units import percent

# A loss that ends above what a model has that knows nothing, by so much, has been driven there.
ABOVE_CHANCE = 1.05
# Share of its fall by which a loss has risen again. wav2vec 2.0's own losses rise by up to a fifth of their
# fall while codes multiply, and fall again; those runs are healthy.
RISEN_AGAIN, OVERFITTED = 0.5, 0.2
FALLEN = 0.02  # of its first value: a loss that fell by less has not moved
FEWEST_POINTS = 4  # for a trend
CODES_MULTIPLIED = 1.5  # with so many more codes, the contrastive task is a harder one
# Updates that were left out because they were not finite. Mixed precision loses a few at its beginning.
SOME_SKIPPED, MOST_SKIPPED = 0.05, 0.5
# The mean of n updates without anything in common has 1 / sqrt(n) of their norm; opposed ones have less.
OPPOSED_UPDATES = 0.7
# The widest spread of our healthy federated runs is 0.26 of the mean loss over their last quarter.
WIDEST_BAND = 0.5


def not_finite(curves: Curves) -> Finding | None:
    """Find losses that were logged but are not finite."""
    training, held_out = curves.not_finite("loss"), curves.not_finite("heldout_loss")
    if not (steps := training or held_out):
        return None
    words = "training loss" if training else "held-out loss"
    labels = (
        " A transcript that is longer than its clip has frames also gives a CTC loss that is not finite: "
        "set ctc_zero_infinity, and leave such clips out."
    )
    return Finding(
        "broken",
        "loss not finite",
        f"The {words} is not finite at {count(steps[0], curves.unit)}, and at {len(steps)} of "
        f"{len(curves.points)} logged points.",
        f"Start again with {curves.spelling.rate} at a tenth{_peak(curves)}, with "
        f"{curves.spelling.clipping}, and in fp32 or bf16 in place of "
        f"fp16.{labels if curves.kind == 'ctc' else ''}",
    )


def skipped_updates(curves: Curves) -> Finding | None:
    """Find updates that a run left out because they were not finite."""
    left_out = sum(curves.values("skipped_updates"))
    share = left_out / curves.steps if curves.steps else 0.0
    if share <= SOME_SKIPPED:
        return None
    return Finding(
        "broken" if share > MOST_SKIPPED else "watch",
        "updates skipped",
        f"{count(left_out, 'updates')} of {curves.steps:,.0f} ({percent(share)}) were left out because "
        "their gradients were not finite.",
        f"Lower {curves.spelling.rate}{_peak(curves)}; use bf16 or fp32 in place of fp16.",
    )


def clients(curves: Curves) -> Finding | None:
    """Find clients whose updates were left out, rounds that nobody taught, and a federation of one."""
    if not curves.federated or not curves.values("clients"):
        return None
    asked, answered = sum(curves.values("asked")), sum(curves.values("clients"))
    left_out = sum(curves.values("skipped"))
    used = answered - left_out
    if not used:
        return Finding(
            "broken",
            "no update that taught",
            f"No update of {asked:,.0f} that were asked for was used: {left_out:,.0f} were left out (not "
            f"finite, too large or learnt from nothing), and {asked - answered:,.0f} clients did not answer "
            "in time.",
            f"Lower {curves.spelling.rate}{_peak(curves)}; raise --max-update-norm or --deadline-steps if "
            "they are given; lower --client-dropout.",
        )
    if answered and left_out / answered > SOME_SKIPPED:
        return Finding(
            "broken" if left_out / answered > MOST_SKIPPED else "watch",
            "clients skipped",
            f"{left_out:,.0f} of {answered:,.0f} updates ({percent(left_out / answered)}) were left out: "
            "not finite, larger than --max-update-norm, or learnt from nothing. `skipped_client_ids` in "
            "metrics.jsonl names the clients.",
            f"Look at the clips of these clients; lower {curves.spelling.rate}{_peak(curves)}, or raise "
            "--max-update-norm if it is given.",
        )
    if curves.clients == 1:
        return Finding(
            "watch",
            "one client",
            "The federation has a single client: nothing is averaged, and its rounds only restart the "
            "optimizer.",
            "Raise --clients, or use --preset centralised.",
        )
    return None


def client_agreement(curves: Curves) -> Finding | None:
    """Find clients whose updates oppose one another, or whose losses lie far apart."""
    if not curves.federated or len(curves.points) < FEWEST_POINTS:
        return None
    cosine = recent(curves.values("cosine"))
    if cosine and mean(cosine) < 0:
        return _divergence(
            f"The cosine between a client's update and the others' mean is {mean(cosine):.2f} on average, "
            "over the last quarter of the diagnosed rounds: updates undo one another."
        )
    ratios = [
        p["update_norm"] / p["client_update_norm"] * p["effective_clients"] ** 0.5
        for p in curves.points
        if p.get("client_update_norm") and {"update_norm", "effective_clients"} <= p.keys()
    ]
    # A private run logs its clients' norms before clipping, and the mean after clipping and noise.
    comparable = not curves.clipped_updates and not curves.values("cosine")
    several = mean([p.get("effective_clients", 0) for p in curves.points]) > 1
    if ratios and comparable and several and (ratio := mean(recent(ratios))) < OPPOSED_UPDATES:
        return _divergence(
            f"The mean update is {ratio:.2f} times as long as that of clients with nothing in common would "
            "be, over the last quarter of the rounds: updates undo one another."
        )
    bands = [
        (p["client_loss_max"] - p["client_loss_min"]) / p["loss"]
        for p in curves.points
        if p.get("loss", 0) > 0 and {"client_loss_min", "client_loss_max"} <= p.keys()
    ]
    if bands and (width := mean(recent(bands))) > WIDEST_BAND:
        return _divergence(
            f"The worst client's loss exceeds the best one's by {percent(width)} of the mean, over the last "
            "quarter of the rounds: some clients hold other speech, noise or silence."
        )
    return None


def _divergence(because: str) -> Finding:
    return Finding(
        "watch",
        "clients diverge",
        because,
        "Lower --local-steps or --learning-rate, pull clients together with --proximal 0.01, and look at "
        "single clients with --diagnose-every 1.",
    )


def rising_loss(curves: Curves) -> Finding | None:
    """Find a loss that ends above its beginning, above chance, or far above its best value."""
    steps, values = curves.series("loss" if len(curves.values("loss")) >= FEWEST_POINTS else "heldout_loss")
    if len(values) < FEWEST_POINTS:
        return None
    last, best = mean(recent(values)), min(values)
    first = max(values[0], curves.first_loss or values[0])
    rate = curves.peak_rate
    rated = f" The peak rate is {rate:g}." if rate is not None else ""
    at = steps[values.index(best)]
    if (
        curves.chance_loss is not None
        and curves.pretrains
        and last > ABOVE_CHANCE * max(curves.chance_loss, first)
    ):
        return rate_too_high(
            curves,
            f"The loss is {loss(last)} nats over the last quarter of the run, above the "
            f"{loss(curves.chance_loss)} of a model that knows nothing.{rated}",
        )
    if last > ABOVE_CHANCE * first:
        return rate_too_high(
            curves, f"The loss has risen from {loss(first)} to {loss(last)} over the run.{rated}"
        )
    fall = first - best
    if fall < FALLEN * abs(first) or last - best < RISEN_AGAIN * fall:
        return None
    finding = rate_too_high(
        curves,
        f"The loss fell from {loss(first)} to {loss(best)} at {count(at, curves.unit)} and has risen to "
        f"{loss(last)} since.{rated}",
    )
    if last < first - 0.1 * fall:
        return Finding("watch", "loss rises again", finding.because, finding.advice)
    return Finding("broken", "training diverged", finding.because, finding.advice)


def extreme_rate(curves: Curves) -> Finding | None:
    """Find codes that collapsed under a rate far beyond all that have worked."""
    rate, highest = curves.peak_rate, rate_limits(curves)[1]
    codes = curves.last("heldout_codes", "codes")
    if not curves.pretrains or rate is None or rate <= highest or codes is None or codes >= 2 * curves.groups:
        return None
    return rate_too_high(
        curves,
        f"The peak rate is {rate:g}; rates that have worked lie below {highest:g}. Codes have collapsed.",
    )


def held_out(curves: Curves) -> Finding | None:
    """Find a held-out loss that rises while the training loss falls."""
    steps, values = curves.series("heldout_loss")
    if len(values) < FEWEST_POINTS:
        return None
    best = min(range(len(values)), key=values.__getitem__)
    fall = max(values[0], curves.first_loss or values[0]) - values[best]
    rise = mean(values[-2:]) - values[best]
    losses = [
        p["loss"]
        for p in curves.points
        if p["step"] >= steps[best] and math.isfinite(p.get("loss", math.nan))
    ]
    codes = [p["heldout_codes"] for p in curves.points if p["step"] >= steps[best] and "heldout_codes" in p]
    if best >= len(values) - 2 or len(losses) < 2 or losses[-1] >= losses[0] or rise <= OVERFITTED * fall:
        return None
    if codes and codes[-1] > CODES_MULTIPLIED * codes[0]:
        return None
    if curves.kind in ("ctc", "keywords") and _still_better(curves, steps[best]):
        return None
    return Finding(
        "watch",
        "held-out loss rises",
        f"The held-out loss was best at {count(steps[best], curves.unit)} with {loss(values[best])} and is "
        f"{loss(mean(values[-2:]))} now, while the training loss fell from {loss(losses[0])} to "
        f"{loss(losses[-1])}: the model learns its training clips by heart.",
        f"Use the best checkpoint ({curves.spelling.best}); add data, or lower {curves.spelling.length}.",
    )


def _still_better(curves: Curves, since: float) -> bool:
    """Tell whether an error rate or accuracy has improved since a step; CTC losses rise before they do."""
    for name, sign in (("wer", -1), ("cer", -1), ("heldout_accuracy", 1)):
        held = [(p["step"], sign * p[name]) for p in curves.points if name in p]
        before, after = [v for s, v in held if s <= since], [v for s, v in held if s > since]
        if before and after:
            return max(after) > max(before)
    return False


def _peak(curves: Curves) -> str:
    return f" (its peak is {curves.peak_rate:g})" if curves.peak_rate is not None else ""


CHECKS: tuple[Callable[[Curves], Finding | None], ...] = (
    not_finite, skipped_updates, clients, extreme_rate, rising_loss, held_out, client_agreement,
)  # fmt: skip
