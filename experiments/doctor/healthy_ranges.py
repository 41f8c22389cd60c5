"""The ranges that the doctor calls healthy, in words beside a run's own numbers. Imports no jax."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.doctor import pretraining_checks, recognition_checks, run_folder
from experiments.doctor.bands import band_of, measured
from experiments.doctor.curves import Curves
from experiments.doctor.wording import count
from experiments.report.units import number, percent

Ranges = dict[str, str]
NAMES = {"accuracy": "accuracy", "codes": "codes", "wer": "WER"}


def ranges(curves: Curves) -> Ranges:
    """Give the healthy ranges at a run's last values by name, such as codes: "over 5 %".

    The names are those of NAMES. A value that the run lacks, or that the doctor does not judge, has no range.
    """
    found = {"accuracy": _accuracy(curves), "codes": _codes(curves), "wer": _errors(curves)}
    return {name: words for name, words in found.items() if words is not None}


def of_round(settings: Mapping[str, Any], line: Mapping[str, Any]) -> Ranges:
    """Give the healthy ranges for a round of pretrain, from its line of metrics.jsonl alone."""
    return ranges(run_folder.pretraining(settings, [line], {}))


def of_validation(settings: Mapping[str, Any], line: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Give the healthy ranges for a validation of finetune in words; empty where none is known.

    Args:
        settings: of the run.
        line: its line of metrics.jsonl.
        data: content of the run's data.json.
    """
    found = ranges(run_folder.finetuning(settings, [line], data))
    return ", ".join(f"healthy: {NAMES[name]} {words}" for name, words in found.items())


def standing(curves: Curves) -> str:
    """Say in a line where a run is and where healthy runs are; empty where nothing is known.

    For example: accuracy 0.31 = 2.4 x control (healthy: over 1.3), codes 41 % (healthy: over 5 %).
    """
    good = ranges(curves)
    now = {"accuracy": _accuracy_now(curves), "codes": None, "wer": None}
    if curves.entries and (codes := curves.last("heldout_codes", "codes")) is not None:
        now["codes"] = f"codes {percent(codes / curves.entries)}"
    if (wer := curves.last("wer")) is not None:
        now["wer"] = f"WER {percent(wer, 1)}"
    return ", ".join(f"{now[name]} (healthy: {words})" for name, words in good.items() if now[name])


def _accuracy_now(curves: Curves) -> str | None:
    accuracy, control = curves.last("heldout_accuracy", "accuracy"), curves.last("control")
    if accuracy is None:
        return None
    ratio = f" = {accuracy / control:.2f} x control" if control else ""
    return f"accuracy {accuracy:.3f}{ratio}"


def _accuracy(curves: Curves) -> str | None:
    """Give the accuracy of healthy runs, as a multiple of the control's where the run has a control."""
    if curves.kind == "keywords":
        least = recognition_checks.TIMES_CHANCE / curves.classes if curves.classes else None
        return None if least is None else f"over {percent(least, 1)}"
    if not curves.pretrains or curves.last("heldout_accuracy", "accuracy") is None:
        return None
    band = band_of(curves)
    steps = measured(curves, band.measure)[0] if band is not None else []
    at = band.at(steps[-1]) if band is not None and steps else None
    if at is not None and band is not None and band.comparable:
        return f"over {at[0] - pretraining_checks.BELOW_BAND_SPREADS * at[1]:.3f}"
    least, control = pretraining_checks.least_accuracy(curves), curves.last("control")
    if least is None or not math.isfinite(least):
        return None
    fewest = pretraining_checks.fewest_updates(curves)
    words = f"over {number(least / control if control else least)}{_from(curves, fewest)}"
    return words if at is None else f"{words}, usual {number(at[0])} ± {at[1]:.2g}"


def _codes(curves: Curves) -> str | None:
    """Give the share of codes that healthy runs use; BEST-RQ is judged for its collapse alone."""
    if not curves.entries or curves.last("heldout_codes", "codes") is None:
        return None
    if curves.kind != "wav2vec2":
        least = pretraining_checks.COLLAPSED_ENTRIES * curves.groups / curves.entries
        return f"over {percent(least, 1)}"
    settled = pretraining_checks.settled_updates(curves)
    return f"over {percent(pretraining_checks.FEW_CODES_SHARE)}{_from(curves, settled)}"


def _errors(curves: Curves) -> str | None:
    """Give the word error rate below which a recognizer is beyond CTC's blank phase."""
    if curves.kind != "ctc" or curves.last("wer") is None:
        return None
    words = f"under {percent(recognition_checks.BLANK_WER)}"
    return f"{words}{_from(curves, recognition_checks.BLANK_UPDATES)}"


def _from(curves: Curves, updates: float) -> str:
    """Say from when on a range holds, while the run has not come so far."""
    if curves.unit != "updates" or curves.steps >= updates:
        return ""
    return f" from {count(updates, 'updates')} on"
