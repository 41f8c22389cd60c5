"""Text of fig5.md: tables of fig5.json, and the sentences of `sentences`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.statistics import mean_spread, signed
from experiments.report.tables import table
from experiments.reproduce.fig5.figures import trend
from experiments.reproduce.fig5.sentences import comparisons, sentences
from experiments.study.curves import cores_of, direction, label, mended
from experiments.study.federated_scales import (
    ARMS,
    BUDGET_ARMS,
    FEDERATED,
    PRETRAINED,
    PROBED,
    TUNED_ON,
)

Rows = Sequence[dict[str, Any]]


def markdown(result: dict[str, Any]) -> str:
    """Make the report that readers see."""
    parts = [
        "# Figure 5: federated pre-training, and what recognition makes of it",
        _what_was_run(result),
        *mended(result),
        "The paper prints the figure but no table of it: only directions can be compared.",
        "![Figure 5](fig5.png)",
        "## What the numbers say",
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        "## Fine-tuning",
        _finetuning_table(result),
        "A contrastive loss is easier to lower where fewer codes are in use (their perplexity, of 640 at "
        "most). Read it beside the codes, and beside what recognition makes of the encoder.",
        *learning_rates(result),
        "## Differences, seed by seed",
        "Negative: the first is better. The last two columns judge CER and loss as the first sentence above "
        "says.",
        _differences_table(result),
        "## Behind the averages",
        "Means over clients at the last diagnosis: cosine of a client's update to the weighted mean, and "
        "to the plain mean of the others; held-out loss and codes in use of the clients' local models and "
        "of the averaged model.",
        _diagnoses_table(result),
        "Diversity weight and Gumbel temperature follow the number of updates that a model goes through, "
        "which differs between arms at equal audio.",
        "## Is pre-training judged fairly?",
        "![probes, budgets, trend](fig5-fairness.png)",
        _probes_table(result),
        _budgets_table(result),
        _trend_table(result),
        _made(result),
    ]
    return "\n\n".join(parts) + "\n"


def _what_was_run(result: dict[str, Any]) -> str:
    settings, data = result["settings"], Path(result["data"])
    work = "; ".join(f"{preset} {' '.join(words)}" for preset, words in settings["local_work"].items())
    return (
        f"`{settings['model']}` on `{data.parent.name}/{data.name}`, scale `{result['scale']}`, "
        f"{result['seeds']} seeds of every cell; ± is their standard deviation. Every arm hears the same "
        f"audio a round, {settings['rounds']} rounds in all ({work}). Fine-tuning is on "
        f"{result['train_minutes']:.1f} minutes, scored on the {result['test_words']} words of the test "
        f"split. {heard_speakers(result)}"
    )


def heard_speakers(result: dict[str, Any]) -> str:
    """Say how many speakers of dev and test pre-training heard."""
    counts: dict[str, list[int | None]] = {}
    for runs in result["pretraining"].values():
        for run in runs:
            for split, count in run["speakers_also_in"].items():
                counts.setdefault(split, []).append(count)
    parts = []
    for split, found in counts.items():
        known = [count for count in found if count is not None]
        low, high = min(known, default=None), max(known, default=None)
        number = "an unknown number" if low is None else f"{low}" if low == high else f"{low} to {high}"
        parts.append(f"{number} of {split}")
    heard = f": {' and '.join(parts)}, by seed" if parts else ""
    return (
        "As in the paper, pre-training hears `validated`, which holds speakers of the splits that "
        f"recognition is chosen and scored on, without their transcripts{heard}. Scratch has heard none of "
        "them."
    )


def _finetuning_table(result: dict[str, Any]) -> str:
    fine = result["finetuning"]

    def pretrained(arm: str, value: Callable[[dict[str, Any]], float | None], digits: int) -> str:
        if arm not in PRETRAINED:
            return "-"
        return mean_spread([value(run) for run in result["pretraining"][arm]], digits)

    return table(
        (
            "arm",
            "WER, %",
            "CER, %",
            "test loss",
            "empty",
            "held-out loss of pre-training",
            "codes in use",
            "effective clients",
        ),
        [
            (
                label(arm),
                _over(fine[arm], "wer", 1, 100),
                _over(fine[arm], "cer", 1, 100),
                _over(fine[arm], "loss", 3),
                _over(fine[arm], "empty_hypotheses", 0),
                pretrained(arm, lambda run: run["curve"]["loss"][-1], 3),
                pretrained(arm, lambda run: run["curve"]["code_perplexity"][-1], 0),
                pretrained(arm, lambda run: run["effective_clients"], 1),
            )
            for arm in ARMS
        ],
    )


def _differences_table(result: dict[str, Any]) -> str:
    number = comparisons(result)
    return table(
        ("what", "arm", "minus", "CER, points", "WER, points", "loss", "CER is", "loss is"),
        [
            (
                {"finetuning": "fine-tuning", "probes": "probe"}[row["kind"]]
                + (f", {row['minutes']:g} minutes" if "minutes" in row else ""),
                label(row["arm"]),
                label(row["against"]),
                signed(row["cer"], 2, 100),
                signed(row["wer"], 2, 100),
                signed(row["loss"], 3),
                direction(row["cer"], number),
                direction(row["loss"], number),
            )
            for row in result["comparisons"]
        ],
    )


def _diagnoses_table(result: dict[str, Any]) -> str:
    columns = {
        "cosine_to_mean": ("cosine to the mean", 2),
        "cosine_to_others": ("to the others", 2),
        "local_loss": ("local loss", 3),
        "averaged_loss": ("averaged loss", 3),
        "local_codes": ("local codes", 0),
        "averaged_codes": ("averaged codes", 0),
    }
    rows = []
    for arm in FEDERATED:
        last = [run["looks"][-1] if run["looks"] else {} for run in result["pretraining"][arm]]
        rows.append(
            (
                label(arm),
                *(
                    mean_spread([row.get(name) for row in last], digits)
                    for name, (_, digits) in columns.items()
                ),
            )
        )
    return table(("arm", *(title for title, _ in columns.values())), rows)


def _probes_table(result: dict[str, Any]) -> str:
    probes = result["probes"]
    return table(
        ("linear probe on", "CER, %", "test loss"),
        [(label(arm), _over(probes[arm], "cer", 1, 100), _over(probes[arm], "loss", 3)) for arm in PROBED],
    )


def _budgets_table(result: dict[str, Any]) -> str:
    whole = (f"{result['train_minutes']:.0f}, all", result["finetuning"])
    head = [f"{label(arm)}: {value}" for value in ("CER, %", "loss") for arm in BUDGET_ARMS]
    return table(
        ("minutes of labels", *head),
        [
            (
                name,
                *(_over(rows[arm], "cer", 1, 100) for arm in BUDGET_ARMS),
                *(_over(rows[arm], "loss", 3) for arm in BUDGET_ARMS),
            )
            for name, rows in (*result["budgets"].items(), whole)
        ],
    )


def _trend_table(result: dict[str, Any]) -> str:
    columns = [
        (f"{label(arm)}: {title}", [_over(rows, name, digits, scale) for rows in by_round.values()])
        for kind, name, title, digits, scale in (
            ("finetune", "cer", "CER, %", 1, 100.0),
            ("finetune", "loss", "test loss", 3, 1.0),
            ("probe", "loss", "probe's loss", 3, 1.0),
        )
        for arm in result["trend"][kind]
        for by_round in [trend(result, kind, arm)]
    ]
    rounds = [f"{number} rounds" for number in trend(result, "probe", next(iter(result["trend"]["probe"])))]
    cells = zip(rounds, *(values for _, values in columns), strict=True)
    return table(("pre-trained for", *(title for title, _ in columns)), cells)


def learning_rates(result: dict[str, Any]) -> list[str]:
    """Say what was tried on the first seed, what was chosen, and what speaks against the choice."""
    chosen, rows = result["learning_rates"], []
    for row in result["tuning"]:
        taken = chosen[row["what"]][row["arm"]] == row["rate"]
        found = f"{row['dev_loss']:.3f}" if "dev_loss" in row else "diverged"
        cer = f"{100 * row['dev_cer']:.1f}" if "dev_cer" in row else ""
        rows.append(
            (row["what"], label(row["arm"]), f"{row['rate']:g}", found, cer, "chosen" if taken else "")
        )
    words = [
        f"Learning rates and checkpoints are chosen by {result['settings']['select_by']} on the validation "
        "split. Every rate was tried on one seed, the first: for scratch by itself, and on "
        f"{label(TUNED_ON)} for all pre-trained encoders. Another seed might choose otherwise, and every "
        "difference to scratch hangs on its rate.",
        *_edges(result),
        *_other_choices(result),
    ]
    headers = ("tuned", "on", "learning rate", "validation loss", "validation CER, %", "")
    return [" ".join(words), table(headers, rows)]


def _edges(result: dict[str, Any]) -> list[str]:
    """Name the chosen rates that are the smallest or the largest of those tried."""
    settings, chosen = result["settings"], result["learning_rates"]
    edges = [
        f"{what} on {label(arm)}"
        for what, tried in (("encoder", settings["rates"]), ("probe", settings["probe_rates"]))
        for arm, rate in chosen[what].items()
        if rate in (min(tried), max(tried))
    ]
    return [f"These chosen rates are at the edge of those tried: {', '.join(edges)}."] if edges else []


def _other_choices(result: dict[str, Any]) -> list[str]:
    """Name the rates that the validation CER of the same runs would have chosen instead."""
    chosen, others = result["learning_rates"], []
    tried: dict[tuple[str, str], dict[float, float]] = {}
    for row in result["tuning"]:
        if "dev_cer" in row:
            tried.setdefault((row["what"], row["arm"]), {})[row["rate"]] = row["dev_cer"]
    for (what, arm), cers in tried.items():
        taken, best = chosen[what][arm], min(cers, key=lambda rate: cers[rate])
        if cers[best] < cers[taken]:
            others.append(
                f"{what} on {label(arm)} {best:g} (CER {100 * cers[best]:.1f} %) in place of {taken:g} "
                f"({100 * cers[taken]:.1f} %)"
            )
    return [f"The validation CER would have chosen otherwise: {'; '.join(others)}."] if others else []


def _over(rows: Rows, name: str, digits: int, scale: float = 1.0) -> str:
    return mean_spread([row[name] for row in rows], digits, scale)


def _made(result: dict[str, Any]) -> str:
    made, seconds = result["provenance"], result["cell_seconds"]
    by_kind = {
        kind: [value for name, value in seconds.items() if name.startswith(kind)]
        for kind in ("pretrain", "finetune", "probe")
    }
    times = ", ".join(
        f"{kind} {np.median(values):.0f} s (at most {max(values):.0f} s)"
        for kind, values in by_kind.items()
        if values
    )
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return (
        "## How it was made\n\nMedian wall time of a cell, start and compilation included, with "
        f"{result['jobs']} cells side by side: {times}. Commit {', '.join(made['cell_commits'])}; "
        f"{made['device']}, {cores_of(made)}; {versions}. Seeds 0 to "
        f"{result['seeds'] - 1}.\n\n```\n{made['command']}\n```"
    )
