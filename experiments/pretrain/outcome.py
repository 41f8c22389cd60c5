"""Sentences on a pre-training run, made from its own metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.prose import from_to, listed
from experiments.report.statistics import differs
from experiments.report.units import duration, percent
from experiments.runs.algorithm_name import algorithm_name
from experiments.runs.tasks import (
    CODE_SHARE,
    HELDOUT,
    OVER_CONTROL,
    PROBE,
    Task,
    beside_accuracy,
    best_line,
    speech_heard,
)

SYNTHETIC = "the built-in synthetic corpus (generated, not speech)"
# Columns of wav2vec 2.0's regularisers, before their weights, and their names.
REGULARISERS = {"diversity": "diversity loss", "feature_penalty": "feature penalty"}
Line = Mapping[str, Any]


def sentences(task: Task, lines: Sequence[Line], untrained: Line, settings: Line, clips: Line) -> list[str]:
    """Say what was trained and what came of it; what a run did not measure is left out.

    Args:
        task: the task of the run.
        lines: the lines of metrics.jsonl, with their shares.
        untrained: content of untrained.json, with its shares.
        settings: of config.json.
        clips: content of clips.json.
    """
    evaluated = [line for line in lines if line.get("heldout_accuracy") is not None]
    found = [_trained(task, lines, settings, clips), _heard(lines)]
    if evaluated:
        found += [
            accuracy(untrained, evaluated[-1], task),
            _best_round(lines, task),
            _losses(untrained, evaluated[-1], task),
            _codes(untrained, evaluated[-1], task),
        ]
    found += [_probe(lines), missing_updates(lines), _unused_rounds(lines), _privacy(lines[-1])]
    return [sentence for sentence in found if sentence]


def total_seconds(lines: Sequence[Line]) -> float:
    """Add up the seconds of rounds and evaluations."""
    return sum(line["round_seconds"] + (line.get("evaluation_seconds") or 0.0) for line in lines)


def data_name(settings: Line) -> str:
    """Name the corpus of a run."""
    return f"`{settings['data']}`" if settings["data"] else SYNTHETIC


def _trained(task: Task, lines: Sequence[Line], settings: Line, clips: Line) -> str:
    """Say which model was trained, by whom and on what."""
    planned = settings.get("rounds") or len(lines)
    rounds = str(len(lines)) if planned == len(lines) else f"{len(lines)} of {planned} planned"
    model = (
        f"The model `{settings['model']}` was trained with {task.name} on {clips['clips']:,} clips of "
        f"{clips['speakers']:,} speakers ({clips['seconds'] / 3600:.2f} h) of {data_name(settings)}"
    )
    if settings["preset"] == "centralised":
        return f"{model}, on all clients' speakers at once, for {rounds} stretches as long as a round."
    return (
        f"{model}: {settings['clients_per_round']} of {len(clips['clients'])} simulated clients took part in "
        f"each of {rounds} rounds, and `{algorithm_name(settings)}` combined their models."
    )


def _heard(lines: Sequence[Line]) -> str:
    """Say how much speech training went through, and how long that took."""
    speech, padded = speech_heard(lines)
    if not speech:
        return ""
    return (
        f"Training went through {speech:,.0f} s of speech ({speech / 3600:.2f} h, with repeats) in "
        f"{duration(total_seconds(lines))}, evaluations included; padding was {percent(padded, 1)} of the "
        "computed audio."
    )


def accuracy(untrained: Line, last: Line, task: Task) -> str:
    """Compare the held-out accuracy with its control and with chance, before and after training.

    A difference of less than two standard errors of the accuracy is called none.
    """
    found, control = last["heldout_accuracy"], last.get("heldout_shuffled_accuracy")
    error, chance = last.get("heldout_accuracy_standard_error"), last.get("heldout_chance_accuracy")
    first, ratio = untrained.get(OVER_CONTROL), last.get(HELDOUT + OVER_CONTROL)
    after = f"after round {last['round']}"
    if ratio is None:
        told = f"Accuracy on held-out speech was {found:.3f} {after}"
    else:
        before = "was" if first is None else f"went from {first:.2f} before training to"
        told = f"Accuracy over its control {before} {ratio:.2f} {after} ({found:.3f}, control {control:.3f})"
    told += "." if chance is None else f"; {task.chance} would reach {chance:.3f}."
    if error is not None and control is not None and not differs(found - control, error):
        told += f" That is no difference from the control: the standard error is {error:.2g}."
    return told


def _best_round(lines: Sequence[Line], task: Task) -> str:
    """Say which round was best, by which column, and what it reached."""
    best = best_line(lines, task)
    if best is None:
        return ""
    held = ""
    if best.get("heldout_accuracy") is not None:
        held = f", with a held-out accuracy of {best['heldout_accuracy']:.3f} ({beside_accuracy(best)})"
    return (
        f"The best round by `{task.best_by}` was {best['round']} of {lines[-1]['round']}: "
        f"{best[task.best_by]:.3f}{held}."
    )


def terms(task: Task) -> dict[str, str]:
    """Name the terms of the task's loss by column; wav2vec 2.0 also has their sum."""
    if task.loss == "loss":
        return {"loss": f"mean {task.loss_name} of {task.groups} codebooks"}
    return {task.loss: task.loss_name} | REGULARISERS | {"loss": "sum of the weighted terms"}


def _losses(untrained: Line, last: Line, task: Task) -> str:
    """Say where each term of the loss went on held-out speech."""
    changes = [
        f"the {words} went {from_to(untrained[name], last[HELDOUT + name], '{:.3f}'.format)}"
        for name, words in terms(task).items()
        if name in untrained and HELDOUT + name in last
    ]
    if not changes:
        return ""
    return f"From the untrained model to round {last['round']}, on held-out speech, {listed(changes)}."


def _codes(untrained: Line, last: Line, task: Task) -> str:
    """Say how large a share of all codes is in use on held-out speech."""
    if CODE_SHARE not in untrained or HELDOUT + CODE_SHARE not in last:
        return ""
    share = from_to(untrained[CODE_SHARE], last[HELDOUT + CODE_SHARE], lambda value: percent(value, 1))
    told = f"{task.codes_name.capitalize()} (perplexity) went {share} of all {task.entries}"
    own = last.get("heldout_code_perplexity")
    if task.trains_codes or own is None:
        return f"{told}."
    return f"{told}; the frames' own codes have {percent(own / task.entries, 1)}."


def _probe(lines: Sequence[Line]) -> str:
    """Say where the accuracy of the probe went, with its best round."""
    held = [line for line in lines if line.get(PROBE) is not None]
    if not held:
        return ""
    first, last, best = held[0], held[-1], max(held, key=lambda line: line[PROBE])
    told = f"The probe was right on {percent(first[PROBE], 1)} of its clips after round {first['round']}"
    if last is not first:
        told += f" and on {percent(last[PROBE], 1)} after round {last['round']}"
    return f"{told}; its best was {percent(best[PROBE], 1)}, after round {best['round']}."


def missing_updates(lines: Sequence[Line]) -> str:
    """Count the updates of clients that were asked for and not used, by reason; empty if all were used."""

    def count(name: str) -> int:
        return sum(line.get(name) or 0 for line in lines)

    dropped, late, large = (count(f"{why}_clients") for why in ("dropped", "late", "too_large"))
    reasons = {
        "never came because the client dropped out": dropped,
        "came too late": late,
        "exceeded --max-update-norm": large,
        "were not finite or learnt from nothing": count("skipped_clients") - large,
    }
    told = [f"{number:,} {why}" for why, number in reasons.items() if number]
    asked = count("clients") + dropped + late
    return f"{asked:,} client updates were asked for: {listed(told)}." if told else ""


def _unused_rounds(lines: Sequence[Line]) -> str:
    """Count the federated rounds that used no client's update."""
    unused = [line for line in lines if "client_weights" in line and not any(line["client_weights"])]
    return f"{len(unused)} of {len(lines)} rounds used no client's update." if unused else ""


def _privacy(last: Line) -> str:
    """Say how much privacy a run with differential privacy spent."""
    if last.get("epsilon") is None:
        return ""
    return f"The rounds spent a privacy of epsilon {last['epsilon']:.3g} at delta {last['delta']:g}."
