"""The report of a fine-tuning run: curves, error rates, speakers and the worst utterances."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.doctor import run_section
from experiments.process.files import read_json, replace_file
from experiments.report.figures import PAGE_INCHES, count_axis, label_ends, message, picture
from experiments.report.page import self_contained_html
from experiments.report.units import by_reason, duration
from experiments.runs.folder import read_config, read_metrics
from experiments.runs.metric_columns import series

FILES = """Files: `results.json`, `transcripts.tsv` (every test clip), `metrics.jsonl` (a line a validation; `events/` for
TensorBoard), `data.json`, `encoder.json`, `tokenizer.json`, `best/` (the checkpoint that was scored), `checkpoints/`,
`config.json`, `starts.jsonl`. `w2v-jax transcribe FILE... --run` takes this folder."""
SPEAKERS_SHOWN = 15


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
    draw(read_metrics(folder / "metrics.jsonl"), result, folder / "curves.png")
    data, encoder = (read_json(folder / name) for name in ("data.json", "encoder.json"))
    page = markdown(result, read_config(folder), data, encoder, run_section.of_folder(folder))
    replace_file(folder / "report.md", page)
    replace_file(folder / "report.html", self_contained_html(page, folder, "w2v-jax fine-tuning"))


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
    result: dict[str, Any],
    config: dict[str, Any],
    data: dict[str, Any],
    encoder: dict[str, Any],
    health: str,
) -> str:
    """Write the report's text; `health` is the section that says whether the run is healthy."""
    settings, provenance, test = config["settings"], result["provenance"], result["test"]
    what = "log-mel bands" if settings["features"] == "log-mel" else f"encoder from {encoder['init']}"
    control = (
        "\n**Control run: every training clip had another clip's transcript.**\n"
        if settings["shuffle_transcripts"]
        else ""
    )
    splits = "\n".join(
        f"| {name} | {held['source']} | {held['clips']} | {held['seconds'] / 60:.1f} | {held['speakers']} | "
        f"{held['words']} | {by_reason(held['dropped'], none='none')} | {by_reason(held.get('changed', {}), none='none')} |"
        for name, held in ((split, data[split]) for split in ("train", "dev", "test"))
    )
    speakers = "\n".join(
        f"| {row['speaker']} | {row['utterances']} | {percent(row['wer'])} | {percent(row['cer'])} |"
        for row in result["per_speaker"][:SPEAKERS_SHOWN]
    )
    worst = "\n\n".join(
        f"`{row['path']}`, WER {percent(row['wer'])}\n\n```\n{row['alignment']}\n```"
        for row in result["worst"]
    )
    unknown = {
        split: "".join(sorted(held)) for split, held in data["characters_without_token"].items() if held
    }
    return f"""# Fine-tuning: {what}
{control}
{health}
## Results

| | test | validation |
|---|---|---|
| WER | **{percent(test["wer"])}** | {percent(result["dev"]["wer"])} |
| CER | **{percent(test["cer"])}** | {percent(result["dev"]["cer"])} |
| loss, nats per token | {_nats(test["loss"])} | {_nats(result["dev"]["loss"])} |

{test["word_edits"]} edits in {test["words"]} words of {test["utterances"]} clips; {test["empty_hypotheses"]} transcripts
came out empty. Greedy decoding, no language model. The checkpoint of update {result["best_update"]} of
{result["updates"]} was scored: the one with the best validation {settings["select_by"].upper()}.
{result["audio_seconds"] / 3600:.2f} h of speech were trained on in {duration(result["train_seconds"])}.

![curves](curves.png)

## Data

| split | from | clips | minutes | speakers | words | left out | changed |
|---|---|---|---|---|---|---|---|
{splits}

{data["tokens"]} tokens ({settings["tokens"]}), the blank included; accents {settings["accents"]}, apostrophes
{settings["apostrophes"]}. Characters without a token: {", ".join(f"{v!r} in {k}" for k, v in unknown.items()) or "none"}.
{test["infeasible"]} test clips have fewer frames than their transcripts need, which no CTC model can write.

## Speakers, the worst first

| speaker | clips | WER | CER |
|---|---|---|---|
{speakers}

## Worst utterances

{worst}

## How it was made

| | |
|---|---|
| encoder | {encoder["init"]} ({encoder["model"]}) |
| frozen | {settings["freeze"]} |
| head | {settings["head_blocks"]} blocks, {settings["head_optimizer"]} |
| commit | {provenance["commit"]} |
| device | {provenance["device"]}, {provenance["cores"]} cores |
| versions | {", ".join(f"{name} {version}" for name, version in provenance["versions"].items())} |
| seed | {provenance["seed"]} |

```
{provenance["command"]}
```

{FILES}
"""


def percent(value: float | None) -> str:
    """Format a share as a percentage, "none" where it is not finite."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _nats(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"
