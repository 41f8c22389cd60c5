"""Logs of other tools, written here in their documented form: what the doctor reads in them, and says."""

import json
import math
import re

import pytest

from experiments.doctor.diagnosis import diagnose
from experiments.doctor.reading import read
from experiments.options.errors import UsageError

LN2 = math.log(2)


def named(path):
    return [held.name for held in diagnose(read(path)).findings]


def fairseq_values(update, loss, accuracy, codes, rate, norm=0.5, frames=140_000):
    return {
        "loss": loss + 0.15, "ntokens": frames, "nsentences": 1400, "prob_perplexity": codes,
        "code_perplexity": codes, "temp": 1.9, "loss_0": loss, "loss_1": 0.12, "loss_2": 0.03,
        "accuracy": accuracy, "wps": 20000, "wpb": frames, "num_updates": update, "lr": rate, "gnorm": norm,
        "train_wall": 90,
    }  # fmt: skip


def fairseq_line(form, tag, values):
    """Write a line as hydra's JSON, the console's JSON or the simple format has it."""
    texts = {name: f"{value:g}" for name, value in values.items()}
    if form == "simple":
        if tag == "train_inner":
            body = "epoch 001:    200 / 1500 " + ", ".join(f"{name}={text}" for name, text in texts.items())
        else:
            body = f"epoch 001 | {tag} on 'valid' subset | " + " | ".join(
                f"{n} {t}" for n, t in texts.items()
            )
        return f"2021-03-24 14:33:12 | INFO | {tag} | {body}"
    prefix = "" if tag == "train_inner" else f"{tag}_"
    record = {"epoch": 1, "update": 0.5} | {f"{prefix}{name}": text for name, text in texts.items()}
    if form == "hydra":
        return f"[2021-03-24 14:33:12,269][{tag}][INFO] - {json.dumps(record)}"
    return f"2021-03-24 14:33:12 | INFO | {tag} | {json.dumps(record)}"


def fairseq_log(form, rows, max_update=400_000):
    lines = [f"{{'optimization': {{'max_update': {max_update}, 'lr': [0.0005]}}, 'encoder_layers': 12}}"]
    lines.append("2021-03-24 14:33:12 | INFO | fairseq.trainer | begin training epoch 1")
    for values in rows:
        lines.append(fairseq_line(form, "train_inner", values))
        held = {
            name: values[name] for name in ("loss", "loss_0", "accuracy", "code_perplexity", "num_updates")
        }
        lines.append(fairseq_line(form, "valid", held))
    return "\n".join(lines) + "\n"


# Losses in bits, as fairseq logs them; the accuracies are those of the band.
GOOD = [
    fairseq_values(200, 6.6, 0.012, 300, 3e-6),
    fairseq_values(50_000, 3.3, 0.491, 180, 5e-4),
    fairseq_values(100_000, 3.0, 0.537, 220, 4e-4),
    fairseq_values(200_000, 2.8, 0.58, 250, 3e-4),
    fairseq_values(400_000, 2.5, 0.629, 260, 1e-6),
]


@pytest.mark.parametrize("form", ["hydra", "console", "simple"])
def test_fairseq_is_read_in_its_formats(form, tmp_path):
    path = tmp_path / "train.log"
    path.write_text(fairseq_log(form, GOOD))
    curves = read(path)
    assert (curves.writer, curves.kind, curves.planned, curves.finished) == (
        "fairseq", "wav2vec2", 400_000, True,
    )  # fmt: skip
    assert [point["step"] for point in curves.points] == [200, 50_000, 100_000, 200_000, 400_000]
    assert curves.first("loss") == pytest.approx(6.6 * LN2)
    assert curves.last("heldout_loss") == pytest.approx(2.5 * LN2)
    assert curves.last("accuracy") == curves.last("heldout_accuracy") == 0.629
    assert (curves.last("heldout_codes"), curves.peak_rate, curves.last("gradient_norm")) == (260, 5e-4, 0.5)
    diagnosis = diagnose(curves)
    assert diagnosis.verdict == "healthy"
    assert any("0.629 ± 0.007" in note for note in diagnosis.notes)


def test_fairseq_codes_that_stay_few(tmp_path):
    path = tmp_path / "train.log"
    rows = [fairseq_values(update, 3.4, 0.49, 25.8, 3e-5) for update in range(2_000, 22_001, 4_000)]
    path.write_text(fairseq_log("hydra", [fairseq_values(200, 6.6, 0.012, 300, 3e-6), *rows]))
    assert named(path) == ["few codes"]


def test_fairseq_without_a_gradient(tmp_path):
    path = tmp_path / "train.log"
    rows = [fairseq_values(update, 6.658, 0.01, 353, 4e-4, norm=0.0) for update in (75_000, 150_000, 225_000)]
    path.write_text(fairseq_log("console", rows))
    diagnosis = diagnose(read(path))
    assert (diagnosis.verdict, named(path)[0]) == ("broken", "no gradient")
    assert "optimization.lr" in diagnosis.findings[0].advice


def test_fairseq_that_solves_the_task(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(fairseq_log("simple", [GOOD[0], fairseq_values(4_000, 0.05, 0.99, 2.0, 1e-3)]))
    assert named(path)[0] == "codes have collapsed"


def test_fairseq_below_the_band_with_small_batches_and_overflows(tmp_path):
    path = tmp_path / "train.log"
    rows = [row | {"ntokens": 6_000, "accuracy": 0.8 * row["accuracy"]} for row in GOOD]
    text = fairseq_log("hydra", rows)
    overflow = (
        "[2021-03-24 14:33:12,269][fairseq.trainer][INFO] - NOTE: gradient overflow detected, ignoring\n"
    )
    path.write_text(overflow * 3 + text)
    assert named(path) == ["batches are too small", "accuracy below the band"]
    assert sum(read(path).values("skipped_updates")) == 3
    path.write_text(text + "FloatingPointError: Minimum loss scale reached (0.0001).\n")
    assert named(path)[0] == "loss not finite"


def test_fairseq_fine_tuning(tmp_path):
    path = tmp_path / "train.log"
    lines = []
    for update, loss, wer in ((1000, 4.2, 100.0), (2000, 4.1, 99.9), (3000, 4.1, 99.8)):
        held = {"loss": 90 * loss, "nll_loss": loss, "uer": wer, "wer": wer, "num_updates": update}
        lines += [
            fairseq_line(
                "console",
                "train_inner",
                {"loss": 90 * loss, "nll_loss": loss, "num_updates": update, "lr": 1e-5, "gnorm": 1},
            ),
            fairseq_line("console", "valid", held),
        ]
    path.write_text("\n".join(lines))
    curves = read(path)
    assert (curves.kind, curves.last("wer")) == ("ctc", 0.998)
    assert curves.last("heldout_loss") == pytest.approx(4.1 * LN2)
    assert named(path) == ["blank phase of CTC"]


def trainer_state(tmp_path, history, **state):
    path = tmp_path / "trainer_state.json"
    whole = {"epoch": 3.0, "global_step": 1500, "max_steps": 1500, "log_history": history} | state
    path.write_text(json.dumps(whole))
    return path


def test_transformers_that_hide_losses_which_are_not_finite(tmp_path):
    history = [
        {"epoch": 1.0, "learning_rate": 3.5e-5, "loss": 14.84, "step": 500},
        {"epoch": 1.0, "eval_loss": math.nan, "eval_wer": 0.99, "eval_runtime": 36.5, "step": 500},
        {"epoch": 2.0, "grad_norm": math.nan, "learning_rate": 8.3e-5, "loss": 0.0, "step": 1000},
        {"epoch": 3.0, "learning_rate": 7.6e-5, "loss": 0.0, "step": 1500},
        {"epoch": 3.0, "train_loss": 4.9, "train_runtime": 900.0, "step": 1500},
    ]
    path = trainer_state(tmp_path, history)
    curves = read(path)
    assert (curves.kind, curves.finished, len(curves.points)) == ("ctc", True, 3)
    diagnosis = diagnose(curves)
    assert (diagnosis.verdict, diagnosis.findings[0].name) == ("broken", "loss not finite")
    assert "ctc_zero_infinity" in diagnosis.findings[0].advice
    assert "logging_nan_inf_filter" in diagnosis.notes[0]
    assert read(tmp_path).writer == "transformers"


@pytest.mark.parametrize(
    ("records", "hidden"),
    [
        ([{"loss": 0.02}, {"loss": 0.0}, {"loss": 0.0}], 0),
        ([{"loss": 0.5}, {"loss": 0.0, "grad_norm": 1e-5}, {"loss": 0.0, "grad_norm": 1e-5}], 0),
        ([{"loss": 0.5}, {"loss": 0.0}, {"loss": 0.0, "grad_norm": math.nan}], 2),
        ([{"loss": 0.0}, {"loss": 0.0}, {"loss": 0.0}], 3),
    ],
)
def test_transformers_losses_of_zero_after_small_ones_are_small(records, hidden, tmp_path):
    """A classifier that has converged logs 0.0, for the Trainer rounds its losses to four decimals."""
    history = [{"loss": 0.69, "grad_norm": 2.0, "step": 100}] if records[0]["loss"] else []
    for place, record in enumerate(records, 2):
        history += [
            record | {"step": 100 * place},
            {"eval_loss": 0.3 / place, "eval_accuracy": 0.99, "step": 100 * place},
        ]
    curves = read(trainer_state(tmp_path, history))
    assert len(curves.not_finite("loss")) == hidden
    assert curves.values("loss").count(0.0) == sum(record["loss"] == 0 for record in records) - hidden
    assert ("loss not finite" in [held.name for held in diagnose(curves).findings]) == (hidden > 0)
    if not hidden:
        assert diagnose(curves).verdict == "healthy"


def test_transformers_with_a_sum_as_loss_and_overfitting(tmp_path):
    history = []
    for place in range(12):
        step = 100 * (place + 1)
        history += [
            {"loss": 142.6 - 9 * place, "learning_rate": 3e-4, "grad_norm": 2.0, "step": step},
            {
                "eval_loss": 80.0 - 8 * place if place < 5 else 48.0 + 3 * (place - 5),
                "eval_wer": 0.07,
                "step": step,
            },
        ]
    path = trainer_state(tmp_path, history, global_step=1200)
    assert named(path) == ["held-out loss rises", "loss of a wrong scale"]
    assert not read(path).finished


def test_transformers_that_learn(tmp_path):
    history = []
    for place in range(1, 11):
        part = 1 - math.exp(-place / 3)
        history += [
            {"loss": 3.5 - 3 * part, "learning_rate": 1e-4, "grad_norm": 1.0, "step": 1000 * place},
            {"eval_loss": 3.2 - 2.7 * part, "eval_wer": 1.0 - 0.8 * part, "step": 1000 * place},
        ]
    path = trainer_state(tmp_path, history, global_step=10_000, max_steps=10_000)
    assert diagnose(read(path)).verdict == "healthy"


def speechbrain_line(epoch, steps, rate, loss, held, accuracy):
    """Write an epoch of the wav2vec 2.0 recipe, whose losses are sums over a batch."""
    return (
        f"epoch: {epoch}, steps: {steps}, lr: {rate:.2e} - train loss: {loss:.2e} - valid loss: {held:.2e}, "
        f"valid accuracy: {accuracy}\n"
    )


@pytest.mark.parametrize(("accuracy", "found"), [(0.62, []), (0.57, ["accuracy below the band"])])
def test_speechbrain_pre_training(accuracy, found, tmp_path):
    path = tmp_path / "train_log.txt"
    lines = [
        speechbrain_line(1, 18_223, 3.04e-4, 21_300, 2_370, 0.3597),
        speechbrain_line(2, 36_446, 4.51e-4, 16_600, 2_070, 0.4266),
        speechbrain_line(20, 364_460, 4.28e-5, 11_300, 1_610, accuracy),
    ]
    path.write_text("".join(lines) + "Epoch loaded: 20 - test loss: 1.60e+03\n")
    curves = read(path)
    assert (curves.writer, curves.kind, curves.steps, curves.unit) == (
        "SpeechBrain", "wav2vec2", 364_460, "updates",
    )  # fmt: skip
    assert (curves.first("loss"), curves.peak_rate) == (21_300, 4.51e-4)
    assert named(path) == found
    assert "sums its loss" in curves.notes[0]


def test_speechbrain_recognition(tmp_path):
    path = tmp_path / "train_log.txt"
    lines = [
        f"epoch: {epoch}, lr_model: 9.0e-01, lr_wav2vec: 1.00e-04 - train loss: {4 - epoch / 100:.2f} - "
        f"valid loss: {3.1 - epoch / 100:.2f}, valid CER: 1.00e+02, valid WER: 1.00e+02"
        for epoch in range(1, 9)
    ]
    path.write_text("\n".join(lines))
    curves = read(path)
    assert (curves.kind, curves.unit, curves.last("wer"), curves.peak_rate) == ("ctc", "epochs", 1.0, 0.9)
    assert named(path) == ["blank phase of CTC"]
    path.write_text(re.sub(r"train loss: \S+", "train loss: nan", "\n".join(lines)))
    assert named(path)[0] == "loss not finite"


@pytest.mark.parametrize(
    "text", ["", "hello\n", "{}", '{"log_history": 3}', "[1, 2]", "epoch: one - train loss: two", "\x00\xff"]
)
def test_other_files_are_refused_with_the_names_of_the_formats(text, tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(text)
    with pytest.raises(
        UsageError, match=r"is not understood: give a run folder .* SpeechBrain's train_log\.txt"
    ):
        read(path)
