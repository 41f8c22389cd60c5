"""Failures with one cause each, planted in the lines of a healthy or real run: the doctor names them."""

import dataclasses
import math

import pytest

from experiments.doctor import run_folder
from experiments.doctor.diagnosis import diagnose
from experiments.runs.folder import read_metrics
from tests.experiments.doctor import kept

LINES = read_metrics(kept.RESULTS / "pretraining" / "ten-clients-fedavg.jsonl")
SETTINGS = kept.settings_of(
    "tiny", preset="ten-clients", rounds=40, clients=10, learning_rate=2e-3, batch_size=4, crop_seconds=2.0
)
UNTRAINED = {"contrastive": 4.805, "accuracy": 0.021}


def planted(change=lambda line, part: {}, untrained=UNTRAINED, looks=(), **settings):
    """Diagnose the kept run after a change of its lines; `part` runs from 0 to 1 over the run."""
    lines = [line | change(line, place / len(LINES)) for place, line in enumerate(LINES)]
    return diagnose(run_folder.pretraining(SETTINGS | settings, lines, untrained, looks))


def names(diagnosis):
    return [held.name for held in diagnosis.findings]


def with_losses(change):
    """Change all columns of losses of a line, where they are."""
    columns = ("loss", "contrastive", "heldout_loss", "heldout_contrastive")
    return lambda line, part: {name: change(line[name], part) for name in columns if name in line}


def alone(columns, since=0.0):
    """Set columns to fixed values from a part of the run on."""
    return lambda line, part: {name: v for name, v in columns.items() if name in line and part >= since}


def test_the_run_itself_is_healthy():
    assert planted().verdict == "healthy"


BITS, SUM = 1 / math.log(2), 300.0
CODES = {"code_perplexity": 2.4, "heldout_code_perplexity": 2.1}
NOBODY = {"clients": 0, "dropped_clients": 10, "loss": None, "contrastive": None}
STUCK = {"heldout_accuracy": 0.02, "heldout_shuffled_accuracy": 0.02, "chance_accuracy": 0.02}


def untrained(factor):
    return {"untrained": {"contrastive": factor * 4.805, "accuracy": 0.0105}}


def down_and_up(loss, part):
    return 4.8 - 3 * part if part < 0.4 else min(4.79, 2.4 + 3 * part)


def stuck_at(loss):
    return lambda line, part: STUCK | {"contrastive": loss, "heldout_contrastive": loss}


def by_heart(line, part):
    held = {"heldout_contrastive": 3.8 + 0.9 * part} if "heldout_contrastive" in line and part > 0.2 else {}
    return held | {"heldout_code_perplexity": 150.0}


# Failure -> (change of a line, settings, severity, name of the first finding).
PLANTED = {
    "nan": (alone({"loss": None, "contrastive": None}, 0.5), {}, "broken", "loss not finite"),
    "collapse": (alone(CODES, 0.3), {}, "broken", "codes have collapsed"),
    "trivial": (alone({"heldout_accuracy": 0.99}), {}, "broken", "codes have collapsed"),
    "bits": (with_losses(lambda x, part: BITS * x), untrained(BITS), "watch", "loss of a wrong scale"),
    "sum": (with_losses(lambda x, part: SUM * x), untrained(SUM), "broken", "loss of a wrong scale"),
    "divided": (with_losses(lambda x, part: x / 8), untrained(1 / 8), "watch", "loss of a wrong scale"),
    "down and up": (with_losses(down_and_up), {}, "broken", "training diverged"),
    "above": (with_losses(lambda x, part: 4.9 + 3 * part), {"learning_rate": 0.5}, "broken", "rate too high"),
    "few masks": (alone({"masked_share": 0.1}), {}, "watch", "masks are too few"),
    "small batch": (alone({}), {"batch_size": 1, "crop_seconds": 1.5}, "watch", "batches are too small"),
    "some skipped": (alone({"skipped_clients": 2}), {}, "watch", "clients skipped"),
    "most skipped": (alone({"skipped_clients": 8}), {}, "broken", "clients skipped"),
    "nobody answered": (lambda line, part: NOBODY, {}, "broken", "no update that taught"),
    "one client": (alone({"clients": 1}), {"clients": 1}, "watch", "one client"),
    "opposed updates": (alone({"update_norm": 0.05}), {}, "watch", "clients diverge"),
    "losses apart": (alone({"client_loss_min": 2, "client_loss_max": 6}), {}, "watch", "clients diverge"),
    "by heart": (by_heart, {}, "watch", "held-out loss rises"),
    "nothing learnt": (stuck_at(4.62), {}, "broken", "nothing learnt"),
    "rate too low": (stuck_at(4.8), {"learning_rate": 1e-8}, "broken", "rate too low"),
}


@pytest.mark.parametrize("failure", PLANTED)
def test_a_planted_failure_is_named_first(failure):
    change, settings, severity, name = PLANTED[failure]
    diagnosis = planted(change, **settings)
    assert names(diagnosis)[:1] == [name], diagnosis
    assert diagnosis.verdict == severity
    for held in diagnosis.findings:
        assert held.because.endswith(".")
        assert held.advice.endswith(".")
        assert "nan" not in held.because


def test_a_diagnosed_run_is_judged_by_its_cosines():
    for cosines, expected in ((-0.4, 0.1), ["clients diverge"]), ((0.3, -0.1), []):
        clients = [{"cosine_to_others": cosine} for cosine in cosines]
        looks = [{"round": number, "clients": clients} for number in (10, 20, 30)]
        assert names(planted(looks=looks)) == expected


def test_a_private_run_is_not_judged_by_norms_before_and_after_clipping():
    short = {"update_norm": 0.05}
    assert names(planted(alone(short))) == ["clients diverge"]
    assert names(planted(alone(short), dp_clip_norm=0.1)) == []
    lines_alone = [line | short | {"clipped_share": 1.0} for line in LINES]
    assert names(diagnose(run_folder.pretraining(SETTINGS, lines_alone, UNTRAINED))) == []


@pytest.mark.parametrize(
    ("missing", "words"),
    [((), "0.020 against 0.030 of its control."), (("control",), "0.020 against 0.040 of guessing.")],
)
def test_an_accuracy_is_compared_with_what_the_log_has(missing, words):
    """Logs without a control are compared with guessing, and say so."""
    values = {"loss": 4.6, "heldout_loss": 4.6, "heldout_accuracy": 0.02, "control": 0.03, "chance": 0.04}
    points = [
        {"step": 1000.0 * step} | {name: value for name, value in values.items() if name not in missing}
        for step in range(1, 11)
    ]
    curves = run_folder.pretraining(SETTINGS, LINES, UNTRAINED)
    diagnosis = diagnose(dataclasses.replace(curves, points=points))
    assert names(diagnosis) == ["nothing learnt"]
    assert words in diagnosis.findings[0].because


def test_a_run_that_has_just_begun_is_not_judged_by_what_it_has_not_learnt():
    curves = run_folder.pretraining(SETTINGS, LINES[:1], UNTRAINED)
    assert (curves.steps, curves.planned, curves.finished) == (25, 1000, False)
    diagnosis = diagnose(curves)
    assert diagnosis.verdict == "healthy"
    assert any("25 of 1,000 updates so far" in note for note in diagnosis.notes)
    assert names(diagnose(run_folder.pretraining(SETTINGS, [], UNTRAINED))) == ["no line yet"]


def test_base_may_take_longer_than_tiny_models_before_it_is_called_broken():
    """The learning rate of base rises for thousands of updates."""
    change = stuck_at(4.6)
    assert names(planted(change)) == ["nothing learnt"]
    assert names(planted(change, model="base")) == ["too short a run"]
    lines = [line | change(line, 0.0) | {"updates": 10 * line["updates"]} for line in LINES]
    assert names(diagnose(run_folder.pretraining(SETTINGS | {"model": "base"}, lines, UNTRAINED))) == [
        "nothing learnt"
    ]


def tuned(change, data=None, keywords=False):
    """Diagnose a fine-tuning run after a change of its points."""
    curves = kept.recognizer(0, keywords=keywords)
    points = [p | change(p, place / len(curves.points)) for place, p in enumerate(curves.points)]
    return diagnose(dataclasses.replace(curves, points=points, **(data or {})))


SILENT = {"wer": 1.0, "cer": 0.98}


def silent(point, part):
    return SILENT | {"heldout_loss": 3.2 - 0.3 * part, "empty": 390.0}


def summed(point, part):
    return {"heldout_loss": 142.0 - 60 * part, "loss": 140.0 - 70 * part}


def still_falling(point, part):
    return {"heldout_loss": 6 - 3.5 * part, "wer": 0.995, "cer": 0.7}


def rises_again(point, part):
    held = 3 - 8 * part if part < 0.25 else 1 + 2 * part
    return {"heldout_loss": held, "loss": 3 - 2.5 * part, "wer": 0.5, "cer": 0.2}


UNKNOWN = {"unknown_characters": {"dev": "éß"}}
TUNED = {
    "blank phase": (silent, {}, "watch", "blank phase of CTC"),
    "long labels": (lambda p, part: {"infeasible": 1_000.0}, {}, "broken", "labels do not fit"),
    "unknown characters": (lambda p, part: {}, UNKNOWN, "watch", "labels do not fit"),
    "sum": (summed, {}, "watch", "loss of a wrong scale"),
    "not finite": (lambda p, part: {"loss": math.nan}, {}, "broken", "loss not finite"),
    "skipped": (lambda p, part: {"skipped_updates": 200.0}, {}, "watch", "updates skipped"),
    "stuck": (lambda p, part: SILENT | {"heldout_loss": 9.0, "loss": 9.0}, {}, "broken", "nothing learnt"),
    "still falling": (still_falling, {}, "watch", "too short a run"),
    "by heart": (rises_again, {}, "watch", "held-out loss rises"),
}


@pytest.mark.parametrize("failure", TUNED)
def test_a_failure_of_fine_tuning_is_named_first(failure):
    change, data, severity, name = TUNED[failure]
    diagnosis = tuned(change, data)
    assert names(diagnosis)[:1] == [name], diagnosis
    assert diagnosis.verdict == severity


def test_keywords_that_are_guessed():
    guesses = {"heldout_accuracy": 0.03, "heldout_loss": 3.6, "loss": 3.5}
    diagnosis = tuned(lambda p, part: guesses, keywords=True)
    assert (diagnosis.verdict, names(diagnosis)) == ("broken", ["nothing learnt"])
    assert "guessing has 2.9 %" in diagnosis.findings[0].because
