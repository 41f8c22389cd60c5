"""The report of a keyword run: curves, accuracy by speaker and by class, and confusions."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from experiments.doctor import run_section
from experiments.process.files import read_json, replace_file, write_json
from experiments.recognition import outcome
from experiments.recognition.clients import report as client_report
from experiments.recognition.keyword_scoring import Classified
from experiments.recognition.report import draw_rates, split_rows
from experiments.report.figures import PAGE_INCHES, count_axis, label_ends, message, picture
from experiments.report.footer import footer
from experiments.report.page import self_contained_html
from experiments.report.prose import bullets, fold
from experiments.report.tables import facts, table
from experiments.report.units import percent
from experiments.runs.folder import METRICS, RunFolder, read_config, read_metrics
from experiments.runs.metric_columns import series

FILES = """`results.json` has all scores, `predictions.tsv` every test clip, `metrics.jsonl` a line for each
validation (`events/` the same for TensorBoard). `data.json`, `encoder.json` and `keywords.json` (head and
classes) say what was trained; `best/` is the checkpoint that was scored; `checkpoints/`, `config.json` and
`starts.jsonl` let the same command continue. `w2v-jax transcribe FILE... --run` takes this folder."""
SPLIT_COLUMNS = ("split", "from", "clips", "minutes", "speakers", "classes", "left out", "changed")
ROWS_SHOWN = 15
MOST_NAMES_DRAWN = 50  # on an axis of the confusion picture; more cannot be read


def finish(
    folder: RunFolder,
    test: Classified,
    chosen: dict[str, Any],
    lines: list[dict[str, Any]],
    personalised: dict[str, Any] | None,
) -> None:
    """Write the results of a run into its folder, and print the test accuracy.

    Args:
        folder: the folder of the run.
        test: the test split as the chosen checkpoint names its classes.
        chosen: metrics of the validation whose checkpoint is scored.
        lines: metrics of all validations.
        personalised: of `personalisation.personalised`, if there is one.
    """
    scores = test.scores()
    result = {
        "test": scores,
        "dev": {name: chosen[f"dev_{name}"] for name in ("accuracy", "loss")},
        "best_update": chosen["update"],
        "updates": lines[-1]["update"],
        "audio_seconds": sum(line["audio_seconds"] for line in lines),
        "train_seconds": sum(line["train_seconds"] for line in lines),
        "per_speaker": test.by_speaker(),
        "per_class": test.by_class(),
        "confusions": test.confusions(),
        "provenance": folder.provenance,
    }
    if personalised is not None:
        result["personalised"] = personalised
    write_predictions(folder.path, test)
    write_json(folder.path / "results.json", result)
    write(folder.path)
    print(f"test: accuracy {outcome.accuracy(scores)}")
    if personalised is not None:
        print(client_report.told(personalised))
    print(f"report: {folder.path / 'report.html'}")


def write_predictions(folder: Path, found: Classified) -> None:
    """Write predictions.tsv: path, speaker, class, guess, probability of the guess."""
    with (folder / "predictions.tsv").open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out, delimiter="\t", lineterminator="\n")
        rows.writerow(("path", "speaker", "class", "guess", "probability"))
        probabilities = found.probabilities.max(1)
        for clip, name, guess, probability in zip(
            found.held.clips, found.held.texts, found.guesses, probabilities, strict=True
        ):
            rows.writerow((clip.row.path, clip.row.client_id, name, guess, f"{probability:.4f}"))


def write(folder: Path) -> None:
    """Write curves.png, confusion.png, report.md and report.html of a finished run."""
    result = read_json(folder / "results.json")
    lines, settings = read_metrics(folder / METRICS), read_config(folder)["settings"]
    draw(lines, result, folder / "curves.png")
    draw_confusion(result, folder / "confusion.png")
    data, encoder = (read_json(folder / name) for name in ("data.json", "encoder.json"))
    page = markdown(lines, result, settings, data, encoder, health=run_section.of_folder(folder))
    replace_file(folder / "report.md", page)
    replace_file(folder / "report.html", self_contained_html(page, folder, "w2v-jax keyword spotting"))


def draw(lines: list[dict[str, Any]], result: dict[str, Any], path: Path) -> None:
    """Draw loss, accuracy and learning rates over updates, and test accuracy by speaker."""
    with picture(path, 2, 2, figsize=(PAGE_INCHES, 7)) as axes:
        loss, shares, rates, speakers = axes.flat
        for axis, name, title, unit, scale in (
            (loss, "loss", "Cross-entropy (lower is better)", "nats a clip", 1),
            (shares, "accuracy", "Accuracy (higher is better)", "accuracy, %", 100),
        ):
            for column, label, marker in ((name, "training", "-"), (f"dev_{name}", "validation", "o-")):
                x, y = series(lines, column, "update")
                axis.plot(x, [scale * value for value in y], marker, ms=3, label=label)
            axis.axvline(result["best_update"], color="grey", ls=":")
            axis.set(title=title, xlabel="update", ylabel=unit)
        draw_rates(rates, lines)
        each = [100 * row["accuracy"] for row in result["per_speaker"]]
        speakers.bar(range(1, len(each) + 1), each, width=0.9)
        speakers.axhline(100 * result["test"]["accuracy"], color="black", ls=":")
        speakers.set(
            title="Test accuracy by speaker", xlabel="speakers, the worst first", ylabel="accuracy, %"
        )
        speakers.set_xlim(0, max(len(each), 4) + 1)
        count_axis(loss, shares, rates, speakers)
        for axis in (loss, shares, rates):
            label_ends(axis)
        message(
            loss,
            f"Accuracy on test is {percent(result['test']['accuracy'], 1)}. A bar is a speaker (n = "
            f"{len(each)}), the black dotted line all together. Grey dotted line: the update that was "
            "scored. One run, one seed.",
        )


def confusion_matrix(result: dict[str, Any]) -> tuple[list[str], list[str], np.ndarray]:
    """Compute the share of each class's test clips by guess.

    Returns:
        The classes of test; these and all other guesses, in the same order; and float64 [class, guess].
    """
    clips = {row["class"]: row["clips"] for row in result["per_class"]}
    rows = sorted(clips)
    columns = rows + sorted({row["guess"] for row in result["confusions"]} - clips.keys())
    shares = np.zeros((len(rows), len(columns)))
    for row in result["per_class"]:
        place = rows.index(row["class"])
        shares[place, place] = row["accuracy"]
    for row in result["confusions"]:
        share = row["clips"] / clips[row["class"]]
        shares[rows.index(row["class"]), columns.index(row["guess"])] = share
    return rows, columns, shares


def draw_confusion(result: dict[str, Any], path: Path) -> None:
    """Draw the share of each class's test clips by guess; of many classes, only those confused have names."""
    rows, columns, shares = confusion_matrix(result)
    confused = {name for row in result["confusions"] for name in (row["class"], row["guess"])}
    size = min(PAGE_INCHES - 1, 3.5 + 0.22 * len(columns))
    with picture(path, figsize=(size + 1, size)) as axis:
        image = axis.imshow(100 * shares, vmin=0, vmax=100, cmap="Blues", aspect="auto")
        axis.set(title="Guesses by class on test", xlabel="guess", ylabel="class")
        for names, set_ticks in ((columns, axis.set_xticks), (rows, axis.set_yticks)):
            few = len(names) <= MOST_NAMES_DRAWN
            ticks = [place for place, name in enumerate(names) if few or name in confused]
            ticks = ticks if len(ticks) <= MOST_NAMES_DRAWN else []
            set_ticks(ticks, [names[place] for place in ticks], fontsize=7)
        axis.tick_params(axis="x", rotation=90)
        axis.figure.colorbar(image, ax=axis, label="clips of the class, %")
        message(
            axis,
            f"{percent(result['test']['accuracy'], 1)} of the test clips are named right. A row holds the "
            "clips of one class.",
        )


def markdown(
    lines: list[dict[str, Any]],
    result: dict[str, Any],
    settings: dict[str, Any],
    data: dict[str, Any],
    encoder: dict[str, Any],
    *,
    health: str,
) -> str:
    """Write the report's text.

    Args:
        lines: the lines of metrics.jsonl.
        result: the content of results.json.
        settings: of config.json.
        data: the content of data.json.
        encoder: the content of encoder.json.
        health: the section that tells whether the run is healthy.
    """
    test, dev, log_mel = result["test"], result["dev"], settings["features"] == "log-mel"
    what = "log-mel bands" if log_mel else f"encoder from {encoder['init']}"
    control = "**Control run: every training clip had another clip's class.**"
    scores = [
        ("accuracy", percent(test["accuracy"], 1), percent(dev["accuracy"], 1)),
        ("loss, nats a clip", _nats(test["loss"]), _nats(dev["loss"])),
    ]
    confused = [(row["class"], row["guess"], row["clips"]) for row in result["confusions"][:ROWS_SHOWN]]
    made = [
        ("encoder", "none" if log_mel else f"{encoder['init']} ({encoder['model']})"),
        ("frozen", settings["freeze"]),
        ("head", _head(settings)),
        *client_report.federation_facts(settings, data),
        ("seed", settings["seed"]),
    ]
    sections = [
        f"# Keyword spotting: {what}",
        control if settings["shuffle_transcripts"] else "",
        bullets(outcome.keywords(lines, result, settings, data, encoder)),
        health.strip(),
        "## Results",
        table(("", "test", "validation"), scores),
        "![curves](curves.png)",
        "## What was confused",
        "![guesses by class](confusion.png)",
        table(("class", "guess", "clips"), confused) if confused else "Every test clip got its class.",
        "## Classes, the worst first",
        table(("class", "clips", "accuracy"), _accuracies(result["per_class"], "class")),
        "## Speakers, the worst first",
        table(("speaker", "clips", "accuracy"), _accuracies(result["per_speaker"], "speaker")),
        client_report.section(result),
        "## Data",
        table(SPLIT_COLUMNS, split_rows(data, "sentences")),
        _data_sentences(settings, data, test),
        "## How it was made",
        facts(made),
        footer(result["provenance"]),
        fold("Files beside this report", FILES),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(settings: dict[str, Any]) -> str:
    return (
        f"{settings['pooling']} pooling of {settings['segments']} parts, {settings['layers']} layers, "
        f"{settings['head_blocks']} blocks, {settings['head_optimizer']}"
    )


def _data_sentences(settings: dict[str, Any], data: dict[str, Any], test: dict[str, Any]) -> str:
    labels = "all" if settings["labels"] is None else f"{settings['labels']:g} %"
    told = [
        f"The classes are the values of column `{settings['column']}`. Of the training clips of each class, "
        f"{labels} were used."
    ]
    if unseen := test["of_unseen_classes"]:
        told.append(f"{unseen} test clips are of classes that no training clip has; they count as errors.")
    if shared := data["test_speakers_in_train"]:
        told.append(f"{shared} of the {test['speakers']} test speakers are in train too.")
    return " ".join(told)


def _accuracies(rows: list[dict[str, Any]], title: str) -> list[tuple[Any, ...]]:
    return [(row[title], row["clips"], percent(row["accuracy"], 1)) for row in rows[:ROWS_SHOWN]]


def _nats(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"
