"""The report of a fine-tuning run: curves, error rates, speakers and the worst utterances."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.doctor import recognition_checks, run_folder, run_section
from experiments.process.files import read_json, replace_file
from experiments.recognition import outcome
from experiments.recognition.clients import report as client_report
from experiments.report.figures import PAGE_INCHES, count_axis, label_ends, message, picture
from experiments.report.footer import footer
from experiments.report.page import self_contained_html
from experiments.report.prose import bullets, fold
from experiments.report.tables import facts, table
from experiments.report.units import by_reason, percent
from experiments.runs.folder import METRICS, read_config, read_metrics
from experiments.runs.metric_columns import series

ABOUT = """WER and CER are the edits that turn the transcripts into the references, over the words or the characters of the
references. Decoding is greedy, without a language model. The loss is in nats per token of the references."""
FILES = """`results.json` has all rates, `transcripts.tsv` every test clip, `metrics.jsonl` a line for each
validation (`events/` the same for TensorBoard). `data.json`, `encoder.json` and `tokenizer.json` say what was
trained; `best/` is the checkpoint that was scored; `checkpoints/`, `config.json` and `starts.jsonl` let the same
command continue. `w2v-jax transcribe FILE... --run` takes this folder."""
SPEAKERS_SHOWN, WORST_SHOWN = 15, 5
SPLIT_COLUMNS = ("split", "from", "clips", "minutes", "speakers", "words", "left out", "changed")


def write_transcripts(
    folder: Path, paths: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]
) -> None:
    """Write transcripts.tsv: path, reference, hypothesis."""
    with (folder / "transcripts.tsv").open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out, delimiter="\t", lineterminator="\n")
        rows.writerow(("path", "reference", "hypothesis"))
        rows.writerows(zip(paths, references, hypotheses, strict=True))


def write(folder: Path) -> None:
    """Write curves.png, report.md and report.html of a finished run."""
    result = read_json(folder / "results.json")
    lines = read_metrics(folder / METRICS)
    draw(lines, result, folder / "curves.png")
    data, encoder = (read_json(folder / name) for name in ("data.json", "encoder.json"))
    health, worst = run_section.of_folder(folder), blank_phase(folder, result) or worst_utterances(result)
    page = markdown(lines, result, read_config(folder)["settings"], data, encoder, health=health, worst=worst)
    replace_file(folder / "report.md", page)
    replace_file(folder / "report.html", self_contained_html(page, folder, "w2v-jax fine-tuning"))


def blank_phase(folder: Path, result: dict[str, Any]) -> str | None:
    """Tell that the scored checkpoint still writes blanks alone, or nearly so; None if it writes words.

    Args:
        folder: the run's folder.
        result: the content of its results.json.
    """
    test = result["test"]
    scored = {"step": result["best_update"], "wer": test["wer"], "cer": test["cer"]}
    scored |= {"heldout_loss": test["loss"], "empty": test["empty_hypotheses"]}
    finite = {name: value for name, value in scored.items() if value is not None}
    curves = dataclasses.replace(run_folder.read(folder), points=[finite], heldout_clips=test["utterances"])
    if recognition_checks.blank_phase(curves) is None:
        return None
    return (
        f"The model is still in CTC's blank phase (loss {_nats(test['loss'])} a token; usual before about "
        f"{recognition_checks.BLANK_UPDATES:,} updates, and it was scored after {result['best_update']:,}): "
        f"{test['empty_hypotheses']} of {test['utterances']} transcripts are empty. Their alignments would "
        "show nothing and are left out."
    )


def draw(lines: list[dict[str, Any]], result: dict[str, Any], path: Path) -> None:
    """Draw loss, error rates and learning rates over updates, and error rates by speaker."""
    with picture(path, 2, 2, figsize=(PAGE_INCHES, 7)) as axes:
        loss, errors, rates, speakers = axes.flat
        loss.plot(*series(lines, "loss", "update"), label="training")
        loss.plot(*series(lines, "dev_loss", "update"), "o-", ms=3, label="validation")
        loss.set(title="CTC loss (lower is better)", xlabel="update", ylabel="nats per token")
        for name, label in (("dev_wer", "WER"), ("dev_cer", "CER")):
            x, y = series(lines, name, "update")
            errors.plot(x, [100 * value for value in y], "o-", ms=3, label=label)
        errors.axvline(result["best_update"], color="grey", ls=":")
        errors.set(title="Validation errors", xlabel="update", ylabel="errors, %", ylim=(0, None))
        draw_rates(rates, lines)
        each = sorted(row["wer"] * 100 for row in result["per_speaker"] if row["wer"] is not None)
        speakers.bar(range(1, len(each) + 1), each, width=0.9)
        speakers.axhline(100 * result["test"]["wer"], color="black", ls=":")
        speakers.set(title="Test WER by speaker", xlabel="speakers, the best first", ylabel="WER, %")
        speakers.set_xlim(0, max(len(each), 4) + 1)
        count_axis(loss, errors, rates, speakers)
        for axis in (loss, errors, rates):
            label_ends(axis)
        test = result["test"]
        message(
            loss,
            f"On test, WER is {percent(test['wer'])} and CER {percent(test['cer'])} over "
            f"{test['utterances']} utterances. A bar is a speaker (n = {len(each)}), the black dotted line all "
            "together. Grey dotted line: the update that was scored. One run, one seed.",
        )


def draw_rates(axis: Any, lines: list[dict[str, Any]]) -> None:
    """Draw the learning rates over updates; equal ones of encoder and head are one line."""
    rates = {group: series(lines, f"{group}_learning_rate", "update") for group in ("encoder", "head")}
    if rates["encoder"] == rates["head"]:
        rates = {"encoder, head": rates["head"]}
    for label, (updates, values) in rates.items():
        if any(values):
            axis.plot(updates, values, label=label)
    axis.set(title="Learning rates", xlabel="update", ylabel="learning rate", yscale="log")


def markdown(
    lines: list[dict[str, Any]],
    result: dict[str, Any],
    settings: dict[str, Any],
    data: dict[str, Any],
    encoder: dict[str, Any],
    *,
    health: str,
    worst: str,
) -> str:
    """Write the report's text.

    Args:
        lines: the lines of metrics.jsonl.
        result: the content of results.json.
        settings: of config.json.
        data: the content of data.json.
        encoder: the content of encoder.json.
        health: the section that tells whether the run is healthy.
        worst: the worst utterances, or why they are not shown.
    """
    what = "log-mel bands" if settings["features"] == "log-mel" else f"encoder from {encoder['init']}"
    control = "**Control run: every training clip had another clip's transcript.**"
    speakers = [
        (row["speaker"], row["utterances"], percent(row["wer"], 1), percent(row["cer"], 1))
        for row in result["per_speaker"][:SPEAKERS_SHOWN]
    ]
    test, dev = result["test"], result["dev"]
    rates = [
        ("WER", percent(test["wer"], 1), percent(dev["wer"], 1)),
        ("CER", percent(test["cer"], 1), percent(dev["cer"], 1)),
        ("loss, nats per token", _nats(test["loss"]), _nats(dev["loss"])),
    ]
    sections = [
        f"# Fine-tuning: {what}",
        control if settings["shuffle_transcripts"] else "",
        bullets(outcome.recognition(lines, result, settings, data, encoder)),
        health.strip(),
        "## Results",
        table(("", "test", "validation"), rates),
        "![curves](curves.png)",
        fold("What the rates are", ABOUT),
        "## Worst utterances",
        worst,
        "## Speakers, the worst first",
        table(("speaker", "clips", "WER", "CER"), speakers),
        client_report.section(result),
        "## Data",
        table(SPLIT_COLUMNS, split_rows(data, "words")),
        _tokens(result, settings, data),
        "## How it was made",
        facts(_made(settings, encoder, data)),
        footer(result["provenance"]),
        fold("Files beside this report", FILES),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _tokens(result: dict[str, Any], settings: dict[str, Any], data: dict[str, Any]) -> str:
    """Say what the tokens are, which characters have none, and which clips do not fit."""
    unknown = ", ".join(
        f"{''.join(sorted(held))!r} in {split}"
        for split, held in data["characters_without_token"].items()
        if held
    )
    told = (
        f"{data['tokens']} tokens ({settings['tokens']}), the blank included; accents {settings['accents']}, "
        f"apostrophes {settings['apostrophes']}. Characters without a token: {unknown or 'none'}."
    )
    if unfit := result["test"]["infeasible"]:
        told += f" {unfit} test clips have fewer frames than their transcripts need, which no CTC model can write."
    return told


def worst_utterances(result: dict[str, Any]) -> str:
    """Show the utterances with the highest WER aligned; results.json has more of them."""
    shown = result["worst"][:WORST_SHOWN]
    aligned = [
        f"`{row['path']}`, WER {percent(row['wer'], 1)}\n\n```\n{row['alignment']}\n```" for row in shown
    ]
    rest = len(result["worst"]) - len(shown)
    return "\n\n".join([*aligned, *([f"`results.json` has the next {rest}."] if rest else [])])


def split_rows(data: dict[str, Any], counted: str) -> list[tuple[Any, ...]]:
    """Make the rows of the splits' table, one for each of train, dev and test.

    Args:
        data: the content of data.json.
        counted: what of the transcripts is counted: words, or sentences (the classes of keywords).
    """
    return [
        (
            split,
            held["source"],
            held["clips"],
            f"{held['seconds'] / 60:.1f}",
            held["speakers"],
            held[counted],
            by_reason(held["dropped"], none="none"),
            by_reason(held.get("changed", {}), none="none"),
        )
        for split, held in ((split, data[split]) for split in ("train", "dev", "test"))
    ]


def _made(settings: dict[str, Any], encoder: dict[str, Any], data: dict[str, Any]) -> list[tuple[str, Any]]:
    """List the facts that say how the run was made."""
    return [
        ("encoder", f"{encoder['init']} ({encoder['model']})"),
        ("frozen", settings["freeze"]),
        ("head", f"{settings['head_blocks']} blocks, {settings['head_optimizer']}"),
        *client_report.federation_facts(settings, data),
        ("seed", settings["seed"]),
    ]


def _nats(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"
