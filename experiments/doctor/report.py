"""The words of the doctor: in the terminal, as a section of a run's report, and as a page with curves."""

import tempfile
import textwrap
from pathlib import Path
from typing import Any

from experiments.doctor.bands import Band, band_of, measured
from experiments.doctor.curves import NAMES, Curves
from experiments.doctor.findings import Diagnosis
from experiments.doctor.healthy_ranges import standing
from experiments.doctor.wording import loss as nats
from experiments.process.files import replace_file
from experiments.report.figures import PAGE_INCHES, label_ends, message, picture
from experiments.report.page import self_contained_html
from experiments.report.units import percent

WIDTH = 100  # characters of a line in the terminal
TITLE = "Is this run healthy?"
VERDICTS = {
    "healthy": "The run is healthy: no check found anything wrong.",
    "watch": "Watch this run: the findings below may pass, or they cost quality.",
    "broken": "The run is broken: more rounds will not mend it.",
}


def text(name: str, curves: Curves, diagnosis: Diagnosis) -> str:
    """Write the diagnosis for a terminal.

    Args:
        name: of the run, as the user gave it.
    """
    planned = "" if curves.planned is None else f" of {curves.planned:,.0f}"
    lines = [
        f"{name}: {diagnosis.verdict}",
        f"{curves.writer}, {NAMES[curves.kind]}, {curves.steps:,.0f}{planned} {curves.unit}",
        *textwrap.wrap(summary(curves), WIDTH),
        *(textwrap.wrap(f"Now: {now}.", WIDTH) if (now := standing(curves)) else []),
    ]
    for found in diagnosis.findings:
        lines += ["", f"{found.severity}: {found.name}"]
        lines += _wrapped("because ", found.because) + _wrapped("do      ", found.advice)
    if diagnosis.notes:
        lines.append("")
    for note in diagnosis.notes:
        lines += _wrapped("note    ", note)
    return "\n".join(lines)


def summary(curves: Curves) -> str:
    """Say in a sentence where the losses, accuracies and error rates of a run went; empty without any."""
    parts = []
    for name, words in (("loss", "training loss"), ("heldout_loss", "held-out loss")):
        if values := curves.values(name):
            parts.append(f"{words} {nats(values[0])} to {nats(values[-1])}")
    accuracy, control = curves.last("heldout_accuracy", "accuracy"), curves.last("control")
    if accuracy is not None:
        beside = "" if control is None else f" ({control:.3f} of its control)"
        parts.append(f"accuracy {accuracy:.3f}{beside}")
    for name in ("wer", "cer"):
        if (value := curves.last(name)) is not None:
            parts.append(f"{name.upper()} {percent(value, 1)}")
    codes = curves.last("heldout_codes", "codes")
    if codes is not None and curves.entries:
        parts.append(f"codes {codes:.0f} of {curves.entries}")
    told = ", ".join(parts)
    return f"{told[0].upper()}{told[1:]}." if told else ""


def _wrapped(head: str, sentence: str) -> list[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent=f"  {head}", subsequent_indent=" " * (len(head) + 2))


def section(curves: Curves, diagnosis: Diagnosis, *, summarised: bool = True) -> str:
    """Write the diagnosis as a section in Markdown.

    Args:
        curves: the curves of the run.
        diagnosis: what was found in them.
        summarised: whether the section says where losses and accuracies went.
    """
    told = f"{VERDICTS[diagnosis.verdict]} {summary(curves) if summarised else ''}"
    parts = [f"## {TITLE}", told.strip()]
    if now := standing(curves):
        parts.append(f"Now: {now}.")
    parts += [
        f"- **{held.severity}: {held.name}.** {held.because} *What to change:* {held.advice}"
        for held in diagnosis.findings
    ]
    parts += diagnosis.notes
    return "\n\n".join(parts) + "\n"


def write_page(path: Path, name: str, curves: Curves, diagnosis: Diagnosis) -> None:
    """Write the diagnosis with the run's curves as one HTML page; the picture is inside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = (
        f"# {name}: {diagnosis.verdict}\n\n{curves.writer}, {NAMES[curves.kind]}, {curves.steps:,.0f} "
        f"{curves.unit}.\n\n{section(curves, diagnosis)}\n![curves](curves.png)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        draw(curves, Path(folder) / "curves.png")
        html = self_contained_html(page, Path(folder), f"doctor: {name}")
    replace_file(path, html)


def _caption(curves: Curves) -> str:
    band = band_of(curves)
    told = ["One run. Circles are held-out values, lines without circles are those of training."]
    if band is not None:
        told.append(f"The grey band is the {band.measure} of {band.source}: mean and one standard deviation.")
    return " ".join(told)


def draw(curves: Curves, path: Path) -> None:
    """Draw loss, accuracy or error rates, and codes or learning rate, over steps into a PNG."""
    with picture(path, mosaic=(["loss", "loss"], ["quality", "third"]), figsize=(PAGE_INCHES, 6.5)) as axes:
        from matplotlib.ticker import EngFormatter, MaxNLocator

        loss, quality, third = axes["loss"], axes["quality"], axes["third"]
        _pair(loss, curves, "loss", "Loss (lower is better)", "nats" if curves.chance_loss else "as logged")
        if curves.chance_loss is not None:
            loss.axhline(curves.chance_loss, color="grey", ls=":", label="knows nothing")
        _quality(quality, curves)
        if curves.values("codes") or curves.values("heldout_codes"):
            _pair(third, curves, "codes", "Codes", f"perplexity, of {curves.entries}")
            third.set_ylim(bottom=0)
        else:
            third.plot(*curves.series("rate"), color="C0")
            third.set(title="Learning rate", ylabel="rate")
        for axis in axes.values():
            axis.set_xlabel(curves.unit)
            axis.xaxis.set_major_locator(MaxNLocator(6))
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k
            axis.grid(alpha=0.25)
            label_ends(axis)
        message(loss, f"{summary(curves)} {_caption(curves)}".strip())


def _pair(axis: Any, curves: Curves, name: str, title: str, unit: str) -> None:
    """Draw a value of training and of held-out clips."""
    axis.plot(*curves.series(name), color="C0", alpha=0.7, label="training")
    axis.plot(*curves.series(f"heldout_{name}"), "o-", ms=3, color="C1", label="held out")
    axis.set(title=title, ylabel=unit)


def _quality(axis: Any, curves: Curves) -> None:
    """Draw error rates where there are any, else the accuracy with its control and band."""
    rates = [name for name in ("wer", "cer") if curves.values(name)]
    for name in rates:
        steps, values = curves.series(name)
        axis.plot(steps, [100 * value for value in values], "o-", ms=3, label=name.upper())
    if rates:
        axis.set(title="Error rates", ylabel="%", ylim=(0, None))
        return
    band = band_of(curves)
    if band is not None and band.measure == "accuracy over control":
        axis.plot(*measured(curves, band.measure), "o-", ms=3, color="C1", label="held out")
        axis.axhline(1, color="C3", ls="--", label="as its control")
        axis.set(title="Accuracy over its control", ylabel="multiple of the control's")
    else:
        _pair(axis, curves, "accuracy", "Accuracy", "share")
        axis.plot(*curves.series("control"), "--", color="C3", label="control")
    if band is not None:
        _draw_band(axis, band)
    axis.set_ylim(bottom=0)


def _draw_band(axis: Any, band: Band) -> None:
    low, high = (
        [mean + sign * spread for mean, spread in zip(band.means, band.spreads, strict=True)]
        for sign in (-1, 1)
    )
    axis.fill_between(list(band.updates), low, high, color="grey", alpha=0.35, lw=0)
