"""Checks of fine-tuning: the blank phase of CTC, labels that do not fit, and whether a head has learnt."""

from collections.abc import Callable

from experiments.doctor.curves import Curves, recent
from experiments.doctor.findings import Finding
from experiments.doctor.wording import count, loss
from experiments.report.units import percent

# Word and character error rates of a model that writes nothing, or nearly nothing, but blanks.
BLANK_WER, BLANK_CER, BLANK_SHARE = 0.99, 0.9, 0.5
# A rule of thumb for the updates until words come, from a pre-trained encoder of base's size.
BLANK_UPDATES = 2_000
# Nats a label of a model that writes blanks alone: near the entropy of characters (2.8 to 3.3 for most
# alphabets), and of word pieces. Above it, the head has not even learnt that yet.
PLATEAU = 3.5
RECOGNISED_WER = 0.9  # words were recognised where it was lower
SOME_DO_NOT_FIT, MANY_DO_NOT_FIT = 0.01, 0.2
# An error rate so low has a loss of far less than this a label; a larger loss is a sum.
SUMMED_LOSS, GOOD_WER = 10.0, 0.5
MOVED = 0.02  # of its first value: a loss that fell by less has not moved
FEWEST_POINTS = 4
TIMES_CHANCE = 2.0
FEWEST_UPDATES = 100
# A loss that falls evenly loses a quarter in the last quarter; one that has come to rest far less.
LATE, STILL_FALLING = 0.75, 0.15
LOWEST_RATE = 1e-6  # of a head; recipes lie between 1e-5 (whole models) and 1 (adadelta)


def words_lost(curves: Curves) -> Finding | None:
    """Find a recognizer that recognised words and no longer does, while its loss rose."""
    steps, rates = curves.series("wer")
    losses = curves.values("heldout_loss") or curves.values("loss")
    if curves.kind != "ctc" or not rates or rates[-1] < BLANK_WER or min(rates) > RECOGNISED_WER:
        return None
    if not losses or losses[-1] <= min(losses):
        return None
    at = steps[rates.index(min(rates))]
    return Finding(
        "broken",
        "training diverged",
        f"The WER fell to {percent(min(rates), 1)} at {count(at, curves.unit)} and is "
        f"{percent(rates[-1], 1)} now, while the loss rose from {loss(min(losses))} to {loss(losses[-1])}.",
        f"Lower {curves.spelling.rate}, clip gradients, and start again; until then take the best "
        "checkpoint.",
    )


def blank_phase(curves: Curves) -> Finding | None:
    """Find a recognizer that still writes blanks alone, or nearly so."""
    wer, cer = curves.last("wer"), curves.last("cer")
    if words_lost(curves):
        return None
    if curves.kind != "ctc" or (wer is None and cer is None):
        return None
    clips, empty = curves.heldout_clips, curves.last("empty")
    share = empty / clips if clips and empty is not None else None
    silent = share is not None and share > BLANK_SHARE
    if not silent and ((wer is not None and wer < BLANK_WER) or (cer is not None and cer < BLANK_CER)):
        return None
    held = curves.last("heldout_loss", "loss")
    if held is None:  # not finite: another check says so
        return None
    texts = f"; {percent(share)} of the validation transcripts are empty" if share is not None else ""
    rates = ", ".join(
        f"{name} {percent(value, 1)}" for name, value in (("WER", wer), ("CER", cer)) if value is not None
    )
    return Finding(
        "watch",
        "blank phase of CTC",
        f"After {count(curves.steps, curves.unit)} the model writes next to nothing: {rates}, loss "
        f"{loss(held)} a label{texts}. Every recognizer begins so; words come when the loss falls below "
        "about 2.5 nats, for wav2vec 2.0 after some thousand updates (fairseq trains 20,000 on 10 h of "
        "speech).",
        f"Raise {curves.spelling.length}; begin from {curves.spelling.start}; raise {curves.spelling.rate} "
        "if the loss has stopped falling.",
    )


def no_word_yet(curves: Curves) -> Finding | None:
    """Find a recognizer that has made few updates and writes letters, but no right word."""
    wer, cer = curves.last("wer"), curves.last("cer")
    if curves.kind != "ctc" or wer is None or cer is None or wer < BLANK_WER or words_lost(curves):
        return None
    if curves.unit != "updates" or curves.steps >= BLANK_UPDATES or blank_phase(curves):
        return None
    return Finding(
        "watch",
        "no word yet",
        f"After {count(curves.steps, curves.unit)} next to no word is right (WER {percent(wer, 1)}), though "
        f"letters are (CER {percent(cer, 1)}). Runs have come below 99 % after about "
        f"{count(BLANK_UPDATES, 'updates')}.",
        f"Raise {curves.spelling.length}; begin from {curves.spelling.start}; give more transcribed speech.",
    )


def labels(curves: Curves) -> Finding | None:
    """Find transcripts that are longer than their clips have frames, or that hold unknown characters."""
    if curves.kind != "ctc":
        return None
    unfit, clips = curves.values("infeasible"), curves.train_clips
    epochs = max((p["epoch"] for p in curves.points if "epoch" in p), default=0.0)
    heard = clips * epochs if clips and epochs else None
    share = sum(unfit) / heard if heard else 0.0
    if share > SOME_DO_NOT_FIT:
        return Finding(
            "broken" if share > MANY_DO_NOT_FIT else "watch",
            "labels do not fit",
            f"{percent(min(share, 1.0), 1)} of the training clips have fewer frames than their transcripts "
            "have labels, counted over all epochs; CTC cannot write them, and they are left out of the "
            "loss.",
            "Check that transcripts belong to their clips; use --tokens pieces, which are fewer, or a "
            "model with shorter frames.",
        )
    if held := curves.unknown_characters:
        told = ", ".join(f"{text!r} in {split}" for split, text in held.items())
        return Finding(
            "watch",
            "labels do not fit",
            f"Some characters have no token, because the training transcripts lack them: {told}. They count "
            "as errors.",
            "Give all characters with --alphabet, or fold them with --accents fold and --apostrophes fold.",
        )
    return None


def summed_loss(curves: Curves) -> Finding | None:
    """Find a loss that is a sum over the labels of a batch: a low error rate goes with a small mean."""
    wer, held = curves.last("wer", "cer"), curves.last("heldout_loss", "loss")
    if curves.kind != "ctc" or wer is None or held is None or wer > GOOD_WER or held < SUMMED_LOSS:
        return None
    return Finding(
        "watch",
        "loss of a wrong scale",
        f"The loss is {loss(held)} although {percent(wer, 1)} of words or characters are wrong; the mean "
        "over labels of such a model is below 1 nat. It is a sum over the labels of a clip or a batch.",
        "Take the mean (ctc_loss_reduction in transformers); with a sum, long clips weigh more, and the "
        f"learning rate and {curves.spelling.clipping} depend on the batch.",
    )


def head_learning(curves: Curves) -> Finding | None:
    """Find a head whose loss has not moved, or whose accuracy is that of chance."""
    values = curves.values("heldout_loss") or curves.values("loss")
    if curves.pretrains or len(values) < 2 or not curves.steps:
        return None
    accuracy = curves.last("heldout_accuracy")
    fall = values[0] - min(recent(values, 0.5))
    enough = curves.finished or curves.steps >= FEWEST_UPDATES
    chance = 1 / curves.classes if curves.kind == "keywords" and curves.classes else None
    guesses = chance is not None and accuracy is not None and accuracy < TIMES_CHANCE * chance
    stuck = fall < MOVED * abs(values[0]) and (curves.kind != "ctc" or values[-1] > PLATEAU)
    if not enough or not (guesses or (stuck and not _good(curves))):
        return None
    because = (
        f"The validation loss went from {loss(values[0])} to {loss(values[-1])} in "
        f"{count(curves.steps, curves.unit)}."
    )
    if guesses:
        because += f" The accuracy is {percent(accuracy, 1)}; guessing has {percent(chance, 1)}."
    rates = curves.values("rate")
    if rates and max(rates) < LOWEST_RATE:
        return Finding(
            "broken",
            "rate too low",
            f"{because} The peak rate of the head is {max(rates):g}.",
            f"Raise {curves.spelling.rate}, for example to 1e-3 with Adam.",
        )
    if curves.steps < FEWEST_UPDATES and curves.unit == "updates":
        return Finding("watch", "too short a run", because, f"Raise {curves.spelling.length}.")
    return Finding(
        "broken",
        "nothing learnt",
        because,
        f"Check that labels belong to their clips; raise {curves.spelling.rate}; begin from "
        f"{curves.spelling.start}.",
    )


def _good(curves: Curves) -> bool:
    """Tell whether an error rate or an accuracy says that the model is beyond its beginning."""
    wer, accuracy = curves.last("wer", "cer"), curves.last("heldout_accuracy")
    return (wer is not None and wer < BLANK_WER) or (
        accuracy is not None and curves.classes is not None and accuracy > TIMES_CHANCE / curves.classes
    )


def still_falling(curves: Curves) -> Finding | None:
    """Find a run that ended with many errors while its validation loss was still falling fast."""
    steps, values = curves.series("heldout_loss")
    wer = curves.last("wer", "cer")
    if curves.kind != "ctc" or not curves.finished or len(values) < FEWEST_POINTS or blank_phase(curves):
        return None
    late = [value for step, value in zip(steps, values, strict=True) if step >= LATE * steps[-1]]
    fall, late_fall = values[0] - values[-1], late[0] - late[-1]
    if wer is None or wer < GOOD_WER or fall <= 0 or late_fall < STILL_FALLING * fall:
        return None
    return Finding(
        "watch",
        "too short a run",
        f"The validation loss was still falling at the end: from {loss(late[0])} to {loss(late[-1])} in the "
        f"last quarter, and by {loss(fall)} over the run; {percent(wer, 1)} of words are still wrong.",
        f"Raise {curves.spelling.length}.",
    )


CHECKS: tuple[Callable[[Curves], Finding | None], ...] = (
    labels, summed_loss, head_learning, words_lost, blank_phase, no_word_yet, still_falling,
)  # fmt: skip
