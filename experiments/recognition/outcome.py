"""Say what happened in a fine-tuning run, in sentences made from its own metrics and results."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.report.prose import from_to, listed
from experiments.report.statistics import interval
from experiments.report.units import duration, percent

WORST_TOLD = 5
Line = Mapping[str, Any]


def recognition(lines: Sequence[Line], result: Line, settings: Line, data: Line, encoder: Line) -> list[str]:
    """Say what a recognizer was trained on, what it reached, and where it errs most.

    Args:
        lines: the lines of metrics.jsonl.
        result: the content of results.json.
        settings: of config.json.
        data, encoder: the content of data.json and of encoder.json.
    """
    test = result["test"]
    return [
        _trained(f"recognizer of {data['tokens']} tokens", result, settings, data, encoder),
        error_rates(result),
        f"{test['empty_hypotheses']} of {test['utterances']} transcripts are empty; a model that writes "
        "nothing has a WER of 100 %.",
        _scored(lines, result, settings, "wer", "WER"),
        _losses(lines, "a token"),
        _skipped(lines),
        _worst("speakers with the highest WER", result["per_speaker"], "speaker", "wer"),
    ]


def keywords(lines: Sequence[Line], result: Line, settings: Line, data: Line, encoder: Line) -> list[str]:
    """Say what a keyword spotter was trained on, what it reached, and where it errs most.

    Args:
        lines, result, settings, data, encoder: as in `recognition`.
    """
    classes = data.get("classes", data["train"]["sentences"])
    confused = [
        f"{row['class']} taken for {row['guess']} ({row['clips']} clips)"
        for row in result["confusions"][:WORST_TOLD]
    ]
    return [
        _trained(f"keyword spotter of {classes} classes", result, settings, data, encoder),
        f"Test accuracy is **{accuracy(result['test'])}**.",
        over_most_frequent(result),
        _scored(lines, result, settings, "accuracy", "accuracy"),
        _losses(lines, "a clip"),
        _skipped(lines),
        _worst("classes with the lowest accuracy", result["per_class"], "class", "accuracy"),
        f"The most frequent confusions are {listed(confused)}." if confused else "",
        _worst("speakers with the lowest accuracy", result["per_speaker"], "speaker", "accuracy"),
    ]


def accuracy(scores: Line) -> str:
    """Format the accuracy of a split, with its interval over speakers."""
    told = f"{percent(scores['accuracy'], 1)} of {scores['clips']} clips"
    if scores["speaker_interval"] is None:
        return f"{told} (no interval: one speaker)"
    return (
        f"{told} (mean over {scores['speakers']} speakers {percent(scores['speaker_mean'], 1)} ± "
        f"{100 * scores['speaker_interval']:.1f}, 95 % t interval)"
    )


def over_most_frequent(result: Line) -> str:
    """Compare the accuracy with that of always guessing the most frequent class of test."""
    test = result["test"]
    chance = max(row["clips"] for row in result["per_class"]) / test["clips"]
    points = 100 * (test["accuracy"] - chance)
    told = (
        f"Always guessing the most frequent class would be right on {percent(chance, 1)}, which is "
        f"{abs(points):.1f} points {'less' if points >= 0 else 'more'}"
    )
    if test["speaker_interval"] is None:
        return f"{told}."
    inside = abs(test["speaker_mean"] - chance) <= test["speaker_interval"]
    return f"{told} and lies {'within' if inside else 'outside'} the interval over speakers."


def error_rates(result: Line) -> str:
    """Give WER and CER of test, with the interval of the speakers' mean WER."""
    test = result["test"]
    rates = [row["wer"] for row in result["per_speaker"] if row["wer"] is not None]
    half = interval(rates)
    beside = "no interval: one speaker"
    if half is not None:
        beside = (
            f"mean WER over {len(rates)} speakers {percent(sum(rates) / len(rates), 1)} ± {100 * half:.1f}, "
            "95 % t interval"
        )
    return (
        f"Test WER is **{percent(test['wer'], 1)}** and CER **{percent(test['cer'], 1)}**: "
        f"{test['word_edits']} edits in {test['words']} words of {test['utterances']} clips ({beside})."
    )


def _trained(what: str, result: Line, settings: Line, data: Line, encoder: Line) -> str:
    """Say what was trained, from what, on how much and for how long."""
    start = f"the encoder of {encoder['init']} (`{encoder['model']}`)"
    if settings["features"] == "log-mel":
        start = "log-mel bands"
    elif encoder["init"] == "scratch":
        start = f"an untrained encoder `{encoder['model']}`"
    train, updates, planned = data["train"], result["updates"], data.get("updates")
    made = f"{updates:,}" if planned in (None, updates) else f"{updates:,} of {planned:,} planned"
    return (
        f"A {what} was trained on {start} with {train['clips']:,} clips of {train['speakers']:,} speakers "
        f"({train['seconds'] / 60:.1f} min): {made} updates went through {result['audio_seconds']:,.0f} s of "
        f"speech, with repeats, in {duration(result['train_seconds'])}."
        f"{_federated(settings, data)}"
    )


def _federated(settings: Line, data: Line) -> str:
    """Say in a further sentence who held the clips; empty for central training."""
    held = data.get("federation")
    if held is None:
        return ""
    return (
        f" The training clips were held by {held['clients']} clients. In each of {held['rounds']} rounds "
        f"{held['clients_per_round']} of them made {settings['local_steps']} local steps, which this report "
        "counts as updates."
    )


def _scored(lines: Sequence[Line], result: Line, settings: Line, name: str, words: str) -> str:
    """Say which update was scored, and how its validation compares with the first and the last."""
    best, by = result["best_update"], settings["select_by"]
    by = by.upper() if by in ("wer", "cer") else by
    others = [
        f"{percent(line[f'dev_{name}'], 1)} after update {line['update']}"
        for line in {line["update"]: line for line in (lines[0], lines[-1])}.values()
        if line["update"] != best
    ]
    beside = f", against {listed(others)}" if others else ""
    return (
        f"Update {best} of {result['updates']}, the best by validation {by}, was scored: its validation "
        f"{words} was {percent(result['dev'][name], 1)}{beside}."
    )


def _losses(lines: Sequence[Line], unit: str) -> str:
    """Say where the losses of training and of validation went; empty with fewer than two validations."""
    if len(lines) < 2:
        return ""
    first, last = lines[0], lines[-1]
    training, validation = (
        from_to(first[name], last[name], "{:.3f}".format) for name in ("loss", "dev_loss")
    )
    return (
        f"From update {first['update']} to update {last['update']} the loss went {training} nats {unit} in "
        f"training and {validation} in validation."
    )


def _skipped(lines: Sequence[Line]) -> str:
    """Count the updates that were left out; empty if none was."""
    skipped = sum(line.get("skipped_updates") or 0 for line in lines)
    why = "they were not finite"
    if any("skipped_clients" in line for line in lines):
        why += ", or their clients learnt nothing"
    return f"{skipped:,} updates were left out because {why}." if skipped else ""


def _worst(words: str, rows: Iterable[Line], title: str, name: str) -> str:
    """Name the worst rows, which come first, but none without errors; empty for fewer than two."""
    perfect = (None, 1.0 if name == "accuracy" else 0.0)
    told = [f"{row[title]} ({percent(row[name], 1)})" for row in rows if row[name] not in perfect]
    return f"The {words} are {listed(told[:WORST_TOLD])}." if len(told) > 1 else ""
